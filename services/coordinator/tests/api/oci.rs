//! Pulls over OCI: skopeo as it comes, and what no client of registries would send.

use pomona_api::client::Client;
use pomona_domain::Digest;
use pomona_domain::model::ModelFile;
use pomona_domain::task::{TaskResult, TestPrediction};
use pomona_testing::skopeo;
use reqwest::Method;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::Path;

use crate::furnished;
use crate::harness::{House, Raw, until};
use crate::registry::trained;
use crate::worker::Machine;

/// A published folder.
const FILES: [(&str, &str); 5] = [
    ("MLmodel", "flavors: {}"),
    ("README.md", "# a model"),
    ("config.json", "{}"),
    ("data/labels/names.txt", "rose\ntulip\n"),
    ("model.safetensors", "weights of a model"),
];

fn result(files: Vec<ModelFile>) -> TaskResult {
    let prediction = TestPrediction {
        path: "rose/1.png".to_owned(),
        label: 1,
        predicted: 1,
        probability: 0.9,
    };
    TaskResult::Published {
        files,
        metrics: BTreeMap::from([("test/accuracy".to_owned(), 0.9)]),
        confusion: vec![vec![2, 0], vec![0, 2]],
        predictions: vec![prediction],
        outcomes: None,
    }
}

async fn uploaded(client: &Client, mark: &str) -> Vec<ModelFile> {
    let mut files = Vec::new();
    for (path, text) in FILES {
        let text = format!("{text}{mark}");
        let digest = client.blob_put_bytes(text.clone()).await.expect("a blob");
        files.push(ModelFile {
            path: path.to_owned(),
            sha256: digest.hex(),
            size: text.len() as u64,
        });
    }
    files
}

/// Publishes a version of `flowers` with these files; it becomes the champion.
async fn publish(house: &House, machine: &mut Machine, key: &str, files: Vec<ModelFile>) {
    trained(house, machine, key).await;
    let lease = machine.has(1).await.remove(0);
    machine.answer(&lease, result(files)).await;
}

/// A house with version 1 of `flowers`, the champion.
async fn with_a_version() -> (House, Machine) {
    let (house, mut machine) = furnished(1).await;
    let files = uploaded(&house.client, "").await;
    publish(&house, &mut machine, "one", files).await;
    (house, machine)
}

fn header<'a>(raw: &'a Raw, name: &str) -> &'a str {
    raw.headers
        .get(name)
        .map_or("", |value| value.to_str().expect("text"))
}

/// `MANIFEST_UNKNOWN 404`
fn refused(raw: &Raw) -> String {
    let code = raw.json()["errors"][0]["code"].clone();
    format!("{} {}", code.as_str().unwrap_or("no code"), raw.status)
}

fn run(words: &[&str]) -> Vec<u8> {
    let home = tempfile::tempdir().expect("a folder");
    let done = skopeo()
        .args(words)
        .env("HOME", home.path())
        .env("XDG_RUNTIME_DIR", home.path())
        .output()
        .expect("skopeo runs");
    let said = String::from_utf8_lossy(&done.stderr);
    assert!(done.status.success(), "skopeo {words:?}: {said}");
    done.stdout
}

fn copy(house: &House, name: &str, target: &Path) {
    let source = format!("docker://{}/flowers{name}", house.address());
    let target = format!("dir:{}", target.display());
    run(&["copy", "--src-tls-verify=false", &source, &target]);
}

fn json_of(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).expect("a file")).expect("JSON")
}

/// The bytes of a blob in a folder that skopeo wrote.
fn blob(folder: &Path, descriptor: &Value) -> Vec<u8> {
    let digest = descriptor["digest"].as_str().expect("a digest");
    let name = digest.strip_prefix("sha256:").expect("SHA-256");
    std::fs::read(folder.join(name)).expect("a blob")
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_the_files_of_a_version_by_each_of_its_names() {
    let (house, _machine) = with_a_version().await;
    let manifest = house.get("/v2/flowers/manifests/champion").await;
    let digest = header(&manifest, "docker-content-digest").to_owned();
    assert_eq!(digest, Digest::of(manifest.text.as_bytes()).to_string());
    for (at, name) in [":champion", ":v1", &format!("@{digest}")]
        .into_iter()
        .enumerate()
    {
        let folder = house.path(&format!("copy{at}"));
        copy(&house, name, &folder);
        assert_eq!(
            std::fs::read(folder.join("manifest.json")).unwrap(),
            manifest.text.as_bytes()
        );
        let layers = json_of(&folder.join("manifest.json"))["layers"].clone();
        let layers = layers.as_array().expect("layers").clone();
        let found: Vec<(String, Vec<u8>)> = layers
            .iter()
            .map(|layer| {
                let path = &layer["annotations"]["org.cncf.model.filepath"];
                assert_eq!(
                    path,
                    &layer["annotations"]["org.opencontainers.image.title"]
                );
                (
                    path.as_str().expect("a path").to_owned(),
                    blob(&folder, layer),
                )
            })
            .collect();
        let wanted = FILES.map(|(path, text)| (path.to_owned(), text.as_bytes().to_vec()));
        assert_eq!(found, wanted);
    }
    let raw = run(&[
        "inspect",
        "--raw",
        "--tls-verify=false",
        &format!("docker://{}/flowers:champion", house.address()),
    ]);
    assert_eq!(raw, manifest.text.as_bytes());
    let pulls = house.get("/metrics").await.text;
    let pulls = pulls
        .lines()
        .find(|line| line.starts_with("pomona_model_pulls_total{protocol=\"oci\"}"));
    assert_eq!(
        pulls,
        Some("pomona_model_pulls_total{protocol=\"oci\"} 5"),
        "each manifest that was sent"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn skopeo_copies_and_inspects_a_version_as_an_image() {
    let (house, _machine) = with_a_version().await;
    let source = format!("docker://{}/flowers:champion-image", house.address());
    let shown = run(&["inspect", "--tls-verify=false", &source]);
    let shown: Value = serde_json::from_slice(&shown).expect("JSON");
    assert_eq!(
        (&shown["Os"], &shown["Architecture"]),
        (&json!("linux"), &json!("amd64"))
    );
    assert_eq!(
        shown["RepoTags"],
        json!(["champion", "champion-image", "v1", "v1-image"])
    );
    let folder = house.path("image");
    copy(&house, ":champion-image", &folder);
    let manifest = json_of(&folder.join("manifest.json"));
    let layers = manifest["layers"].as_array().expect("layers");
    assert_eq!(layers.len(), 1);
    let tar = blob(&folder, &layers[0]);
    let config: Value = serde_json::from_slice(&blob(&folder, &manifest["config"])).expect("JSON");
    assert_eq!(config["rootfs"]["diff_ids"], json!([Digest::of(&tar)]));
    let mut archive = tar::Archive::new(&tar[..]);
    let mut found = BTreeMap::new();
    for entry in archive.entries().expect("a tar") {
        let mut entry = entry.expect("an entry");
        let path = entry.path().expect("a path").display().to_string();
        let mut bytes = Vec::new();
        entry.read_to_end(&mut bytes).expect("its bytes");
        if entry.header().entry_type().is_file() {
            found.insert(path, bytes);
        }
    }
    // What `pomona model pull` gives: the files of the version, by its list.
    let version = house
        .client
        .version_get("flowers", "champion")
        .await
        .unwrap();
    let mut wanted = BTreeMap::new();
    for file in version.files {
        let digest = format!("sha256:{}", file.sha256).parse().unwrap();
        let bytes = house.client.blob_bytes(digest).await.unwrap();
        wanted.insert(format!("models/{}", file.path), bytes.to_vec());
    }
    assert_eq!(found, wanted);
    // An ordinary tool stores it as the layout that runtimes unpack.
    let layout = house.path("layout");
    run(&[
        "copy",
        "--src-tls-verify=false",
        &source,
        &format!("oci:{}:champion", layout.display()),
    ]);
    assert!(layout.join("index.json").exists());
}

#[tokio::test]
async fn a_pull_that_broke_off_goes_on_where_it_was() {
    let (house, _machine) = with_a_version().await;
    let manifest = house.get("/v2/flowers/manifests/v1-image").await.json();
    let layer = &manifest["layers"][0];
    let path = format!("/v2/flowers/blobs/{}", layer["digest"].as_str().unwrap());
    let whole = house.get(&path).await;
    let size = layer["size"].as_u64().unwrap();
    assert_eq!((whole.status, whole.text.len() as u64), (200, size));
    assert_eq!(header(&whole, "accept-ranges"), "bytes");
    let ask =
        async |name: &str, value: &str| house.raw(Method::GET, &path, &[(name, value)], "").await;
    for cut in [1, 511, 512, 1500, 2600, size - 1] {
        let before = ask("range", &format!("bytes=0-{}", cut - 1)).await;
        let after = ask("range", &format!("bytes={cut}-")).await;
        assert_eq!((before.status, after.status), (206, 206));
        let place = format!("bytes {cut}-{}/{size}", size - 1);
        assert_eq!(header(&after, "content-range"), place);
        assert_eq!(before.text + &after.text, whole.text, "cut at {cut}");
    }
    let beyond = ask("range", &format!("bytes={size}-")).await;
    assert_eq!(refused(&beyond), "SIZE_INVALID 416");
    assert_eq!(header(&beyond, "content-range"), format!("bytes */{size}"));
    let known = ask("if-none-match", header(&whole, "etag")).await;
    assert_eq!((known.status, known.text.as_str()), (304, ""));
    let other = [("range", "bytes=1-"), ("if-range", "\"another\"")];
    assert_eq!(house.raw(Method::GET, &path, &other, "").await.status, 200);
    let head = house.raw(Method::HEAD, &path, &[], "").await;
    assert_eq!(
        (head.status, header(&head, "content-length")),
        (200, size.to_string().as_str())
    );
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story")]
async fn what_is_not_there_is_said_in_the_words_of_the_protocol() {
    let (house, _machine) = with_a_version().await;
    let checkpoint = house
        .client
        .version_get("flowers", "1")
        .await
        .unwrap()
        .trained()
        .unwrap()
        .checkpoint;
    let nothing = Digest::of(b"nothing");
    for (path, wanted) in [
        ("/v2/trees/manifests/v1".to_owned(), "NAME_UNKNOWN 404"),
        ("/v2/a/b/manifests/v1".to_owned(), "NAME_UNKNOWN 404"),
        ("/v2/trees/tags/list".to_owned(), "NAME_UNKNOWN 404"),
        (
            "/v2/flowers/manifests/v2".to_owned(),
            "MANIFEST_UNKNOWN 404",
        ),
        (
            "/v2/flowers/manifests/latest".to_owned(),
            "MANIFEST_UNKNOWN 404",
        ),
        (
            "/v2/flowers/manifests/v2-image".to_owned(),
            "MANIFEST_UNKNOWN 404",
        ),
        (
            format!("/v2/flowers/manifests/{nothing}"),
            "MANIFEST_UNKNOWN 404",
        ),
        (
            "/v2/flowers/manifests/sha256:12".to_owned(),
            "DIGEST_INVALID 400",
        ),
        (format!("/v2/flowers/blobs/{nothing}"), "BLOB_UNKNOWN 404"),
        // It is in the store, and no version's.
        (
            format!("/v2/flowers/blobs/{checkpoint}"),
            "BLOB_UNKNOWN 404",
        ),
        (format!("/v2/trees/blobs/{nothing}"), "NAME_UNKNOWN 404"),
        ("/v2/flowers/blobs/x".to_owned(), "DIGEST_INVALID 400"),
        (
            "/v2/flowers/tags/list?n=x".to_owned(),
            "PAGINATION_NUMBER_INVALID 400",
        ),
        (
            "/v2/flowers/tags/list?n=-1".to_owned(),
            "PAGINATION_NUMBER_INVALID 400",
        ),
        ("/v2/flowers/nothing".to_owned(), "NAME_UNKNOWN 404"),
        ("/v2/%00/manifests/v1".to_owned(), "NAME_UNKNOWN 404"),
        (
            "/v2/flowers/manifests/a%00".to_owned(),
            "MANIFEST_UNKNOWN 404",
        ),
        (
            format!("/v2/flowers/manifests/{}", "x".repeat(3000)),
            "MANIFEST_UNKNOWN 404",
        ),
    ] {
        assert_eq!(refused(&house.get(&path).await), wanted, "{path}");
    }
    for (method, path) in [
        (Method::POST, "/v2/flowers/blobs/uploads/"),
        (Method::PATCH, "/v2/flowers/blobs/uploads/x"),
        (Method::PUT, "/v2/flowers/manifests/v9"),
        (Method::DELETE, "/v2/flowers/manifests/v1"),
    ] {
        let raw = house.raw(method.clone(), path, &[], "").await;
        assert_eq!(refused(&raw), "UNSUPPORTED 405", "{method} {path}");
    }
    let other = "application/vnd.docker.distribution.manifest.v2+json";
    let raw = house
        .raw(
            Method::GET,
            "/v2/flowers/manifests/v1",
            &[("accept", other)],
            "",
        )
        .await;
    assert_eq!(
        refused(&raw),
        "MANIFEST_UNKNOWN 404",
        "it is no manifest of that type"
    );
    let base = house.get("/v2/").await;
    assert_eq!(
        (
            base.status,
            header(&base, "docker-distribution-api-version")
        ),
        (200, "registry/2.0")
    );
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story")]
async fn tags_are_listed_in_pages_and_digests_outlive_an_alias_that_moves() {
    let (house, mut machine) = with_a_version().await;
    let old = house.get("/v2/flowers/manifests/champion").await;
    let old_image = house.get("/v2/flowers/manifests/champion-image").await;
    let files = uploaded(&house.client, "2").await;
    publish(&house, &mut machine, "two", files).await;
    let new = house.get("/v2/flowers/manifests/champion").await;
    assert_ne!(new.text, old.text);
    for raw in [&old, &old_image] {
        let digest = header(raw, "docker-content-digest");
        let again = house.get(&format!("/v2/flowers/manifests/{digest}")).await;
        assert_eq!((again.status, &again.text), (200, &raw.text));
        let head = house
            .raw(
                Method::HEAD,
                &format!("/v2/flowers/manifests/{digest}"),
                &[],
                "",
            )
            .await;
        assert_eq!(header(&head, "docker-content-digest"), digest);
        assert_eq!(header(&head, "content-length"), raw.text.len().to_string());
        let known = [("if-none-match", header(raw, "etag"))];
        let known = house
            .raw(
                Method::GET,
                &format!("/v2/flowers/manifests/{digest}"),
                &known,
                "",
            )
            .await;
        assert_eq!(known.status, 304);
    }
    // A file of the new version is pulled though nobody asked for its manifest by digest.
    let file = &house
        .client
        .version_get("flowers", "2")
        .await
        .unwrap()
        .files[0];
    let raw = house
        .get(&format!("/v2/flowers/blobs/sha256:{}", file.sha256))
        .await;
    assert_eq!((raw.status, raw.text.as_str()), (200, "flavors: {}2"));

    let mut tags = Vec::new();
    let mut path = "/v2/flowers/tags/list?n=4".to_owned();
    loop {
        let page = house.get(&path).await;
        let found: Vec<String> = serde_json::from_value(page.json()["tags"].clone()).unwrap();
        tags.extend(found);
        let Some(link) = page.headers.get("link") else {
            break;
        };
        let link = link.to_str().unwrap();
        path = link.split(['<', '>']).nth(1).expect("a path").to_owned();
    }
    assert_eq!(
        tags,
        [
            "champion",
            "champion-image",
            "v1",
            "v1-image",
            "v2",
            "v2-image"
        ]
    );
    assert_eq!(
        house.get("/v2/flowers/tags/list?n=0").await.json()["tags"],
        json!([])
    );
    let digest = header(&old, "docker-content-digest");
    let referrers = house.get(&format!("/v2/flowers/referrers/{digest}")).await;
    assert_eq!(referrers.json()["manifests"], json!([]));
}

/// Bytes of the file whose layer is streamed, and how much more memory that may take, with four
/// clients: a chunk and the next one for each, in each of the places they pass, and some.
const LARGE: u64 = 500 << 20;
const MAX_MORE: u64 = 48 << 20;

fn memory(house: &House, line: &str) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", house.pid())).expect("it runs");
    let found = status.lines().find_map(|text| text.strip_prefix(line));
    let kib: u64 = found
        .and_then(|text| text.split_whitespace().next()?.parse().ok())
        .expect("kB");
    kib << 10
}

/// How many bytes an answer has; none are kept.
async fn pulled(url: String) -> u64 {
    let http = reqwest::Client::builder().no_proxy().build();
    let answer = http.expect("a client").get(url).send();
    let mut answer = answer.await.expect("an answer");
    let mut came = 0;
    while let Some(bytes) = answer.chunk().await.expect("the next bytes") {
        came += bytes.len() as u64;
    }
    came
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_layer_is_streamed_to_several_in_constant_memory() {
    let (house, mut machine) = furnished(1).await;
    let path = house.path("large");
    std::fs::File::create(&path)
        .unwrap()
        .set_len(LARGE)
        .unwrap();
    let (digest, size) = house.client.blob_put_file(&path).await.unwrap();
    let file = ModelFile {
        path: "model.safetensors".to_owned(),
        sha256: digest.hex(),
        size,
    };
    publish(&house, &mut machine, "one", vec![file]).await;
    // The digest of the layer is found without anybody asking.
    let manifest = house
        .get("/v2/flowers/manifests/champion-image")
        .await
        .json();
    let layer = &manifest["layers"][0];
    let url = format!(
        "{}/v2/flowers/blobs/{}",
        house.server(),
        layer["digest"].as_str().unwrap()
    );
    // Only what is asked for from now on counts.
    std::fs::write(format!("/proc/{}/clear_refs", house.pid()), "5").unwrap();
    let before = memory(&house, "VmRSS:");
    let pulls: Vec<_> = (0..4).map(|_| tokio::spawn(pulled(url.clone()))).collect();
    for pull in pulls {
        assert_eq!(pull.await.unwrap(), layer["size"].as_u64().unwrap());
    }
    let more = memory(&house, "VmHWM:").saturating_sub(before);
    assert!(more < MAX_MORE, "{} MiB more", more >> 20);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_digest_of_an_image_is_there_without_anybody_asking() {
    let (house, _machine) = with_a_version().await;
    let store = pomona_store::Store::open(pomona_store::StoreConfig {
        url: format!("sqlite://{}", house.data_dir().join("pomona.db").display()),
        blobs: pomona_store::BlobsAt::Folder(house.data_dir().join("blobs")),
    });
    let store = store.await.unwrap();
    let version = house.client.version_get("flowers", "1").await.unwrap();
    let kept = until("the layer's digest is kept", async || {
        store
            .image_part(version.id, pomona_store::ImagePart::Layer)
            .await
            .unwrap()
    })
    .await;
    let manifest = house.get("/v2/flowers/manifests/v1-image").await.json();
    assert_eq!(manifest["layers"][0]["digest"], kept.to_string());
}
