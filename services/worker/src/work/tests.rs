use super::*;
use pomona_domain::TaskId;
use pomona_domain::model::ModelFile;

fn places(folder: &Path, blobs: &[&[u8]]) -> Places {
    let blobs = blobs.iter().map(|bytes| {
        let digest = Digest::of(bytes);
        (digest, folder.join(digest.hex()))
    });
    Places {
        blobs: blobs.collect(),
        folder: folder.to_owned(),
        features: None,
    }
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused() {
    let folder = Path::new("/lease");
    for name in ["", "/etc/passwd", "../x", "a/../../x", "./a"] {
        // `.` at the beginning is a part of its own, elsewhere it is nothing.
        assert!(below(folder, name).is_err(), "{name}");
    }
    assert_eq!(
        below(folder, "a/b.json").unwrap(),
        Path::new("/lease/a/b.json")
    );
}

#[test]
fn a_published_folder_is_laid_out_as_links_to_its_blobs() {
    let folder = tempfile::tempdir().unwrap();
    let places = places(folder.path(), &[b"weights", b"pictures"]);
    let weights = Digest::of(b"weights");
    std::fs::write(&places.blobs[&weights], b"weights").unwrap();
    let predict = |name: &str| DesiredWork::Predict {
        task: TaskId(1),
        files: BTreeMap::from([(name.to_owned(), weights)]),
        pictures: Digest::of(b"pictures"),
        top: 3,
    };
    let work = predict("deep/model.safetensors");
    assert_eq!(
        inputs(&work),
        BTreeSet::from([weights, Digest::of(b"pictures")])
    );
    let TrainerWork::Predict { model, .. } = trainer_work(&work, &places).unwrap() else {
        panic!("another work");
    };
    let bytes = std::fs::read(model.join("deep/model.safetensors")).unwrap();
    assert_eq!(bytes, b"weights");
    let fault = trainer_work(&predict("../../escape"), &places).unwrap_err();
    assert_eq!(fault.code, Code::Internal);
}

#[test]
fn a_blob_that_was_not_fetched_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let work = DesiredWork::ImportBackbone {
        task: TaskId(7),
        arch: "resnet18".into(),
        weights: Digest::of(b"w"),
    };
    assert_eq!(owners(&work), [TaskId(7).to_string()]);
    let fault = trainer_work(&work, &places(folder.path(), &[])).unwrap_err();
    assert_eq!(fault.code, Code::BlobMissing);
    let told = trainer_work(&work, &places(folder.path(), &[b"w"])).unwrap();
    let TrainerWork::ImportBackbone { output, .. } = told else {
        panic!("another work");
    };
    assert_eq!(output, folder.path().join("output"));
}

#[test]
fn every_file_of_an_answer_is_found_below_the_output() {
    let file = |path: &str, bytes: &[u8]| ModelFile {
        path: path.to_owned(),
        sha256: Digest::of(bytes).hex(),
        size: bytes.len() as u64,
    };
    let published = |files| TaskResult::Published {
        files,
        metrics: BTreeMap::new(),
        confusion: Vec::new(),
        predictions: Vec::new(),
        outcomes: None,
    };
    let output = Path::new("/out");
    let good = published(vec![
        file("config.json", b"c"),
        file("model.safetensors", b"m"),
    ]);
    assert_eq!(
        answer_files(&good, output).unwrap(),
        [
            (Digest::of(b"c"), "/out/config.json".into()),
            (Digest::of(b"m"), "/out/model.safetensors".into())
        ]
    );
    let bad = published(vec![file("../config.json", b"c")]);
    assert!(answer_files(&bad, output).is_err());
    let none = TaskResult::Predicted { pictures: vec![] };
    assert_eq!(answer_files(&none, output).unwrap(), []);
}
