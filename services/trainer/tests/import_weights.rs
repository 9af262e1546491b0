//! Weights files of every container, real and hand-assembled, good and hostile.
#![expect(clippy::unwrap_used, reason = "a test ends at the first surprise")]

#[path = "import_fixtures/pickles.rs"]
mod pickles;

use pickles::{Described, body, legacy, state_dict, zipped};
use pomona_domain::{Code, Fault};
use pomona_trainer::weights::{DType, HostTensor, read};
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

fn read_bytes(bytes: &[u8]) -> Result<BTreeMap<String, HostTensor>, Fault> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("weights");
    std::fs::write(&path, bytes).unwrap();
    read(&path)
}

fn refusal(bytes: &[u8]) -> (Code, String) {
    let fault = read_bytes(bytes).unwrap_err();
    (fault.code, fault.message)
}

fn floats(values: &[f32]) -> Vec<u8> {
    values
        .iter()
        .flat_map(|value| value.to_le_bytes())
        .collect()
}

/// `w` is the transpose of a 2 × 3 matrix, `b` a slice of the same storage, `n` a scalar.
fn example() -> (Vec<Described>, BTreeMap<String, Vec<u8>>) {
    let described = vec![
        Described::new("w", "FloatStorage", "0", 6).view(0, &[3, 2], &[1, 3]),
        Described::new("b", "FloatStorage", "0", 6).view(2, &[2], &[1]),
        Described::new("n", "LongStorage", "1", 1).view(0, &[], &[]),
    ];
    let storages = BTreeMap::from([
        ("0".to_owned(), floats(&[0.0, 1.0, 2.0, 3.0, 4.0, 5.0])),
        ("1".to_owned(), 7i64.to_le_bytes().to_vec()),
    ]);
    (described, storages)
}

fn assert_is_the_example(tensors: &BTreeMap<String, HostTensor>) {
    assert_eq!(tensors.len(), 3);
    let w = HostTensor {
        dtype: DType::F32,
        shape: vec![3, 2],
        bytes: floats(&[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]).into(),
    };
    assert_eq!(tensors["w"], w);
    assert_eq!(tensors["b"].bytes, floats(&[2.0, 3.0]));
    assert_eq!(tensors["n"].dtype, DType::I64);
    assert!(tensors["n"].shape.is_empty());
    assert_eq!(tensors["n"].bytes[..], 7i64.to_le_bytes());
}

fn lite0() -> PathBuf {
    let set = |variable: &str| std::env::var_os(variable).map(PathBuf::from);
    let cache = set("POMONA_CACHE").unwrap_or_else(|| {
        let home = || set("HOME").unwrap_or_default().join(".cache");
        set("XDG_CACHE_HOME").unwrap_or_else(home).join("pomona")
    });
    let path = cache.join("weights/efficientnet-lite0.pth");
    assert!(
        path.exists(),
        "`{}` is missing: run `make setup`",
        path.display()
    );
    path
}

/// The fixture was made by `import_fixtures/digests.py`, which shares nothing with this crate.
#[test]
fn the_real_file_gives_what_an_independent_reader_gives() {
    let fixture =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/import_fixtures/efficientnet-lite0.json");
    let expected: BTreeMap<String, serde_json::Value> =
        serde_json::from_slice(&std::fs::read(fixture).unwrap()).unwrap();
    let found = read(&lite0()).unwrap();
    assert_eq!(found.len(), 296);
    assert!(found.keys().eq(expected.keys()));
    for (name, tensor) in &found {
        let row = &expected[name];
        assert_eq!(row["dtype"], format!("{:?}", tensor.dtype), "{name}");
        assert_eq!(row["shape"], serde_json::json!(tensor.shape), "{name}");
        let digest = pomona_domain::Digest::of(&tensor.bytes);
        assert_eq!(row["sha256"], digest.hex(), "{name}");
    }
    let turned = expected.values().filter(|row| row["contiguous"] == false);
    assert_eq!(turned.count(), 50);
}

#[test]
fn the_real_file_cut_off_is_damaged() {
    let whole = std::fs::read(lite0()).unwrap();
    for length in [20, 10_000, whole.len() / 2, whole.len() - 1] {
        let (code, message) = refusal(&whole[..length]);
        assert_eq!(code, Code::DamagedWeights, "{length}: {message}");
    }
}

#[test]
fn both_containers_honour_offsets_and_strides() {
    let (described, storages) = example();
    assert_is_the_example(&read_bytes(&legacy(&described, &storages)).unwrap());
    let zip = zipped("archive", &state_dict(&described, false), &storages);
    assert_is_the_example(&read_bytes(&zip).unwrap());
}

#[test]
fn a_checkpoint_is_unwrapped() {
    let (described, storages) = example();
    let inner = body(&described, false);
    for wrapper in ["state_dict", "model"] {
        // {"epoch": 3, wrapper: {...}}
        let mut pickle = b"\x80\x02}(X\x05\x00\x00\x00epochK\x03".to_vec();
        pickles::text(&mut pickle, wrapper);
        pickle.extend_from_slice(&inner);
        pickle.extend_from_slice(b"u.");
        assert_is_the_example(&read_bytes(&zipped("m", &pickle, &storages)).unwrap());
    }
}

#[test]
fn parameters_and_attributes_of_a_state_dict_are_read() {
    let (described, storages) = example();
    // OrderedDict([...]) with `_metadata`, and `b` as a Parameter.
    let mut pickle = b"\x80\x02ccollections\nOrderedDict\n)R(".to_vec();
    for (at, one) in described.iter().enumerate() {
        pickles::text(&mut pickle, &one.name);
        if at == 1 {
            pickle.extend_from_slice(b"ctorch._utils\n_rebuild_parameter\n");
        }
        one.write(&mut pickle, false);
        if at == 1 {
            pickle.extend_from_slice(b"\x88ccollections\nOrderedDict\n)R\x87R");
        }
    }
    pickle.extend_from_slice(b"u}X\x09\x00\x00\x00_metadata}sb.");
    assert_is_the_example(&read_bytes(&zipped("m", &pickle, &storages)).unwrap());
}

#[test]
fn a_global_outside_the_list_is_refused_by_name() {
    let attacks: [(&[u8], &str); 6] = [
        (b"cos\nsystem\n(S'touch pwned'\ntR.", "os.system"),
        (
            b"\x80\x02cposix\nsystem\nX\x02\x00\x00\x00id\x85R.",
            "posix.system",
        ),
        (
            b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.",
            "builtins.eval",
        ),
        (b"(S'id'\nios\nsystem\n.", "os.system"),
        (
            b"\x80\x02ctorch.storage\n_load_from_bytes\nC\x01x\x85R.",
            "torch.storage._load_from_bytes",
        ),
        (b"\x80\x02\x82\x01.", "extension registry"),
    ];
    for (pickle, name) in attacks {
        for file in [pickle.to_vec(), zipped("m", pickle, &BTreeMap::new())] {
            let (code, message) = refusal(&file);
            assert_eq!(code, Code::UnsafePickle, "{message}");
            assert!(message.contains(name), "{message}");
            assert!(message.contains("nothing was executed"), "{message}");
        }
    }
}

#[test]
fn an_attack_behind_the_legacy_header_is_refused() {
    let (described, storages) = example();
    let file = legacy(&described, &storages);
    let at = file
        .windows(12)
        .position(|window| window == b"torch._utils")
        .unwrap();
    let mut attacked = file[..at].to_vec();
    attacked.extend_from_slice(b"subprocess\nPopen\n");
    attacked.extend_from_slice(&file[at + 12 + "\n_rebuild_tensor_v2\n".len()..]);
    let (code, message) = refusal(&attacked);
    assert_eq!(code, Code::UnsafePickle);
    assert!(message.contains("subprocess.Popen"), "{message}");
}

#[test]
fn an_allowed_global_cannot_be_called_in_another_way() {
    for pickle in [
        &b"\x80\x02ctorch\nFloatStorage\n(K\x01tR."[..],
        b"\x80\x02N)R.",
        b"\x80\x02ctorch\nFloatStorage\n}b.",
    ] {
        let (code, message) = refusal(&zipped("m", pickle, &BTreeMap::new()));
        assert_eq!(code, Code::UnsafePickle, "{message}");
    }
}

#[test]
fn a_file_cut_off_anywhere_is_refused() {
    let (described, storages) = example();
    let zip = zipped("archive", &state_dict(&described, false), &storages);
    for whole in [legacy(&described, &storages), zip, safetensors()] {
        for length in 0..whole.len() {
            let (code, message) = refusal(&whole[..length]);
            let told = matches!(code, Code::DamagedWeights | Code::UnknownWeights);
            assert!(told, "{length}: {code} {message}");
            assert!(
                length < 16 || code == Code::DamagedWeights,
                "{length}: {message}"
            );
        }
    }
}

#[test]
fn a_compressed_entry_that_would_explode_is_a_bomb() {
    let (described, storages) = example();
    let mut zip = zipped("m", &state_dict(&described, false), &storages);
    let entry = zip
        .windows(4)
        .rposition(|window| window == b"PK\x01\x02")
        .unwrap();
    zip[entry + 10..entry + 12].copy_from_slice(&8u16.to_le_bytes());
    zip[entry + 24..entry + 28].copy_from_slice(&0x7000_0000u32.to_le_bytes());
    let (code, message) = refusal(&zip);
    assert_eq!(code, Code::ZipBomb, "{message}");
}

#[test]
fn views_that_would_explode_are_a_bomb() {
    let wide = Described::new("w", "FloatStorage", "0", 1).view(0, &[1 << 40], &[0]);
    let many: Vec<Described> = (0..2000)
        .map(|n| Described::new(&format!("t{n}"), "FloatStorage", "0", 2000).view(0, &[2000], &[1]))
        .collect();
    for (described, elements) in [(vec![wide], 1), (many, 2000)] {
        let storages = BTreeMap::from([("0".to_owned(), vec![0; elements * 4])]);
        let (code, message) = refusal(&legacy(&described, &storages));
        assert_eq!(code, Code::ZipBomb, "{message}");
        let zip = zipped("m", &state_dict(&described, false), &storages);
        assert_eq!(refusal(&zip).0, Code::ZipBomb);
    }
}

#[test]
fn a_description_without_end_is_a_bomb() {
    let mut pickle = b"\x80\x02".to_vec();
    pickle.resize(3_000_000, b'N');
    assert_eq!(
        refusal(&zipped("m", &pickle, &BTreeMap::new())).0,
        Code::ZipBomb
    );
}

#[test]
fn deep_nesting_is_no_danger() {
    let mut pickle = b"\x80\x02".to_vec();
    pickle.extend(std::iter::repeat_n(b']', 900_000));
    pickle.extend(std::iter::repeat_n(b'a', 899_999));
    pickle.push(b'.');
    let (code, message) = refusal(&zipped("m", &pickle, &BTreeMap::new()));
    assert_eq!(code, Code::UnknownWeights, "{message}");
}

#[test]
fn a_view_beyond_its_storage_is_damaged() {
    for view in [(5, vec![2], vec![1]), (0, vec![2, 2], vec![1, 5])] {
        let (offset, shape, strides) = view;
        let described =
            [Described::new("w", "FloatStorage", "0", 6).view(offset, &shape, &strides)];
        let storages = BTreeMap::from([("0".to_owned(), vec![0; 24])]);
        let (code, message) = refusal(&legacy(&described, &storages));
        assert_eq!(code, Code::DamagedWeights, "{message}");
        assert!(message.contains("`w`"), "{message}");
    }
}

#[test]
fn what_is_no_weights_file_is_said_to_be_none() {
    let files: [&[u8]; 4] = [
        b"",
        b"hello, this is no weights file",
        b"\x80\x02}.",
        &[0; 4096],
    ];
    for file in files {
        assert_eq!(refusal(file).0, Code::UnknownWeights);
    }
    let foreign = zipped("m", b"", &BTreeMap::new());
    assert_eq!(refusal(&foreign).0, Code::DamagedWeights);
    let (code, message) = refusal(&zipped(
        "m",
        b"\x80\x02}X\x01\x00\x00\x00eK\x03s.",
        &BTreeMap::new(),
    ));
    assert_eq!(code, Code::UnknownWeights);
    assert!(message.contains("`e`"), "{message}");
}

#[test]
fn types_that_are_not_read_are_named() {
    let described = [Described::new("w", "ComplexFloatStorage", "0", 1).view(0, &[1], &[1])];
    let storages = BTreeMap::from([("0".to_owned(), vec![0; 8])]);
    let zip = zipped("m", &state_dict(&described, false), &storages);
    let (code, message) = refusal(&zip);
    assert_eq!(code, Code::MisshapenTensor);
    assert!(message.contains("`w`"), "{message}");
}

#[test]
fn a_big_endian_file_is_refused() {
    let (described, storages) = example();
    let file = legacy(&described, &storages);
    let at = file
        .windows(13)
        .position(|window| window == b"little_endian")
        .unwrap();
    let mut turned = file.clone();
    assert_eq!(turned[at + 13], 0x88);
    turned[at + 13] = 0x89;
    assert_eq!(refusal(&turned).0, Code::UnknownWeights);
}

fn safetensors() -> Vec<u8> {
    let header = br#"{"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]},"b":{"dtype":"F32","shape":[],"data_offsets":[4,8]}}"#;
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header);
    file.extend_from_slice(&[1, 2, 3, 4]);
    file.extend_from_slice(&1.5f32.to_le_bytes());
    file
}

#[test]
fn safetensors_are_read() {
    let tensors = read_bytes(&safetensors()).unwrap();
    assert_eq!(tensors["a"].dtype, DType::BF16);
    assert_eq!(tensors["a"].bytes[..], [1, 2, 3, 4]);
    assert_eq!(tensors["b"].bytes[..], 1.5f32.to_le_bytes());
}

#[test]
fn a_missing_file_is_told() {
    let fault = read(Path::new("no such file")).unwrap_err();
    assert_eq!(fault.code, Code::LocalFile);
}

proptest! {
    /// Whatever bytes change, reading ends with an answer.
    #[test]
    fn damaged_bytes_never_panic(
        container in 0usize..3,
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..6),
    ) {
        let (described, storages) = example();
        let mut file = match container {
            0 => legacy(&described, &storages),
            1 => zipped("m", &state_dict(&described, false), &storages),
            _ => safetensors(),
        };
        for (place, byte) in changes {
            let place = place.index(file.len());
            file[place] = byte;
        }
        let _ = read_bytes(&file);
    }
}
