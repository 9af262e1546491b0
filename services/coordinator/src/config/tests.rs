//! Layers, refusals and the file in `config/`.

use std::path::Path;

use super::*;

fn load(file: &str, environment: &[(&str, &str)], args: &ServeArgs) -> Result<Config, Fault> {
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Config::layered(&file.parse().unwrap(), environment, args)
}

#[test]
fn the_file_in_config_says_every_key_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/coordinator.toml");
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text, KEYS.file());
    let table: Table = text.parse().unwrap();
    assert_eq!(table, KEYS.defaults());
}

#[test]
fn the_defaults_are_a_valid_configuration() {
    let config = load("", &[], &ServeArgs::default()).unwrap();
    assert_eq!(config.scheduler(), pomona_scheduler::Config::default());
    assert_eq!(config.address().unwrap().port(), 7878);
    let again = load(&config.render(), &[], &ServeArgs::default()).unwrap();
    assert_eq!(again, config, "what is printed can be read");
}

#[test]
fn a_flag_beats_a_variable_and_a_variable_beats_the_file() {
    let file = "listen = '127.0.0.1:1'\n[http]\nthreads = 3\n[events]\nkept = 7";
    let environment = [
        ("POMONA_COORDINATOR_LISTEN", "127.0.0.1:2"),
        ("POMONA_COORDINATOR_HTTP_THREADS", "4"),
    ];
    let args = ServeArgs {
        listen: Some("127.0.0.1:3".to_owned()),
        ..ServeArgs::default()
    };
    let config = load(file, &environment, &args).unwrap();
    assert_eq!(config.listen, "127.0.0.1:3");
    assert_eq!(config.http.threads, 4);
    assert_eq!(config.events.kept, 7);
}

#[test]
fn what_is_not_understood_is_refused() {
    let none = ServeArgs::default();
    let faults: Vec<String> = [
        load("[http]\nthread = 3", &[], &none),
        load("[http]\nthreads = 'many'", &[], &none),
        load("[log]\nformat = 'xml'", &[], &none),
        load("", &[("POMONA_COORDINATOR_LISTN", "x")], &none),
        load("", &[("POMONA_COORDINATOR_HTTP_THREADS", "x")], &none),
        load("[workers]\npoll_wait_ms = 20000", &[], &none),
        load("[scheduler]\ntick_ms = 0", &[], &none),
        load("[[projects]]\nname = 'a'\nwieght = 2", &[], &none),
        load(
            "[[projects]]\nname = 'a'\n[[projects]]\nname = 'a'",
            &[],
            &none,
        ),
        load("projects = [{name = 'a', weight = 0}]", &[], &none),
        load("pools = [{name = 'a b', slots = 1}]", &[], &none),
        load("pools = [{name = 'a', slots = 0}]", &[], &none),
        load(
            "pools = [{name = 'a', slots = 1, kind = 'tpu'}]",
            &[],
            &none,
        ),
        load("", &[("POMONA_COORDINATOR_POOLS", "big")], &none),
    ]
    .into_iter()
    .map(|result| {
        let fault = result.unwrap_err();
        format!(
            "{} {} / {}",
            fault.code,
            fault.message,
            fault.hint.unwrap_or_default()
        )
    })
    .collect();
    insta::assert_snapshot!(faults.join("\n"));
}

#[test]
fn projects_and_pools_are_tables_of_the_file_or_one_variable() {
    let file = "[[projects]]\nname = 'vision'\nweight = 2\nquota_slots = 8\n[[projects]]\nname = \
                'text'\n[[pools]]\nname = 'gpu'\nslots = 8\nkind = 'cuda'\nlabels = {zone = 'a'}";
    let config = load(file, &[], &ServeArgs::default()).unwrap();
    let policy = config.scheduler().policy;
    assert_eq!(
        (policy.weight("vision"), policy.quota("vision")),
        (2, Some(8))
    );
    assert_eq!((policy.weight("text"), policy.quota("text")), (1, None));
    assert_eq!((policy.weight("nobody"), policy.quota("nobody")), (1, None));
    assert_eq!((policy.pools[0].slots, policy.pools[0].max_workers), (8, 1));
    let again = load(&config.render(), &[], &ServeArgs::default()).unwrap();
    assert_eq!(again, config, "what is printed can be read");
    let variable = ("POMONA_COORDINATOR_POOLS", "[{name = 'cpu', slots = 2}]");
    let config = load(file, &[variable], &ServeArgs::default()).unwrap();
    assert_eq!(config.scheduler().policy.pools[0].name, "cpu");
}

#[test]
fn an_address_beyond_loopback_wants_the_flag() {
    let mut args = ServeArgs {
        listen: Some("0.0.0.0:7878".to_owned()),
        ..ServeArgs::default()
    };
    let fault = load("", &[], &args).unwrap().address().unwrap_err();
    assert_eq!(fault.code, Code::OpenToTheWorld);
    args.insecure_behind_proxy = true;
    assert!(load("", &[], &args).unwrap().address().is_ok());
}

#[test]
fn a_password_is_masked() {
    let file = "[store]\nurl = 'postgres://pomona:hush@db/pomona'";
    let shown = load(file, &[], &ServeArgs::default()).unwrap().render();
    assert!(shown.contains("postgres://pomona:***@db/pomona"), "{shown}");
    assert!(!shown.contains("hush"));
}

#[test]
fn a_place_of_blobs_is_read_and_a_secret_is_masked() {
    let none = ServeArgs::default();
    let bucket = "url = 's3://models/team/a/'\nendpoint = 'https://s3.example.org'\n\
                  access_key = 'key'\nsecret_key = 'hush'";
    let config = load(&format!("[blobs]\n{bucket}"), &[], &none).unwrap();
    let BlobsAt::Bucket(place) = config.blobs_at().unwrap() else {
        panic!("it is a bucket");
    };
    assert_eq!((&*place.bucket, &*place.prefix), ("models", "team/a"));
    for shown in [config.render(), format!("{config:?} {place:?}")] {
        assert!(shown.contains("https://s3.example.org"), "{shown}");
        assert!(!shown.contains("hush"), "{shown}");
    }
    let folder = load("[blobs]\nurl = 'file:///var/blobs'", &[], &none).unwrap();
    let expect = BlobsAt::Folder(PathBuf::from("/var/blobs"));
    assert_eq!(folder.blobs_at().unwrap(), expect);
    let none_named = load("", &[], &none).unwrap();
    let expect = BlobsAt::Folder(none_named.data_dir().join("blobs"));
    assert_eq!(none_named.blobs_at().unwrap(), expect);
    for refused in [
        "url = 'file://var'",
        "url = 's3://'",
        "url = 's3://key:secret@bucket'",
        "url = 'ftp://x'",
        "url = 's3://b'\naccess_key = 'key'",
        "url = 's3://b'\nendpoint = 'http://127.0.0.1:1'",
        "url = 's3://b'\nendpoint = 's3.example.org'",
    ] {
        let fault = load(&format!("[blobs]\n{refused}"), &[], &none).unwrap_err();
        assert_eq!(fault.code, Code::BadConfig, "{refused}");
        assert!(!format!("{fault:?}").contains("secret@"), "{fault:?}");
    }
}
