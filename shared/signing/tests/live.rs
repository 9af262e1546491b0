//! The published Python tool and this crate, side by side, over folders on the disk.

use pomona_domain::{Code, Digest};
use pomona_signing::{SIGNATURE_FILE, SigningKey, sign, verify};
use pomona_testing::clients_python;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

type Listed = Vec<(String, String)>;

/// Folders: a name and paths. A file's content is its own path, repeated.
const FOLDERS: [(&str, &[&str]); 5] = [
    ("one", &["model.safetensors"]),
    (
        "nested",
        &[
            "a/1",
            "a-b",
            "a.txt",
            "sub.x",
            "sub/x",
            "a/b/c/d/e/f/g",
            "a/b.c",
            "a/b/c.d",
        ],
    ),
    (
        "naïve ☃",
        &[
            "naïve/déjà vu.json",
            "模型/權重.bin",
            "🍎/🍏",
            "z",
            "é",
            "e\u{301}",
        ],
    ),
    (
        "odd",
        &[
            "with space",
            "quote'\"",
            "back\\slash",
            "new\nline",
            "-dash",
            "~",
            "..a",
            "{}",
        ],
    ),
    (
        "git",
        &[
            ".gitattributes",
            "config.json",
            "sub/.gitignore",
            ".gitkeep",
        ],
    ),
];

/// A folder on the disk, a key, and the tool.
struct House {
    root: tempfile::TempDir,
    folder: PathBuf,
    key: SigningKey,
}

impl House {
    fn new(name: &str, paths: &[&str]) -> Self {
        let root = tempfile::tempdir().expect("a folder");
        let key = SigningKey::from_random(&Digest::of(name.as_bytes()).0).expect("a key");
        let house = Self {
            folder: root.path().join(name),
            root,
            key,
        };
        let public = house.key.verifying_key().to_pem().expect("a file");
        fs::write(
            house.path("key.pem"),
            house.key.to_pem().expect("a file").as_bytes(),
        )
        .expect("a file");
        fs::write(house.path("key.pub"), public).expect("a file");
        for path in paths {
            house.write(path, &path.repeat(3));
        }
        house
    }

    fn path(&self, name: &str) -> PathBuf {
        self.root.path().join(name)
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.folder.join(path);
        fs::create_dir_all(path.parent().expect("a folder")).expect("a folder");
        fs::write(path, content).expect("a file");
    }

    /// Every file in the folder.
    fn listed(&self) -> Listed {
        let mut listed = Vec::new();
        list(&self.folder, "", &mut listed);
        listed
    }

    fn signature(&self) -> PathBuf {
        self.folder.join(SIGNATURE_FILE)
    }

    fn sign(&self) {
        let name = self.folder.file_name().expect("a name").to_string_lossy();
        let bundle = sign(&self.listed(), &name, &self.key).expect("a signature");
        fs::write(self.signature(), bundle).expect("a file");
    }

    fn verify(&self) -> Result<(), Code> {
        let bundle = fs::read(self.signature()).expect("a file");
        let report = verify(&bundle, &self.listed(), &self.key.verifying_key());
        report.map(|_| ()).map_err(|fault| fault.code)
    }

    /// What the tool says, and whether it is content.
    fn tool(&self, verb: &str, key: [&str; 2]) -> (bool, String) {
        let output = Command::new(clients_python())
            .args(["-m", "model_signing", verb, "key", key[0]])
            .arg(self.path(key[1]))
            .arg("--signature")
            .arg(self.signature())
            .arg(&self.folder)
            .output()
            .expect("the interpreter starts");
        let said = [output.stdout, output.stderr].concat();
        (
            output.status.success(),
            String::from_utf8_lossy(&said).into_owned(),
        )
    }

    fn tool_verifies(&self) -> (bool, String) {
        self.tool("verify", ["--public_key", "key.pub"])
    }
}

fn list(folder: &Path, prefix: &str, listed: &mut Listed) {
    for entry in fs::read_dir(folder).expect("a folder") {
        let entry = entry.expect("an entry");
        let name = entry.file_name().into_string().expect("UTF-8");
        if entry.file_type().expect("a kind").is_dir() {
            list(&entry.path(), &format!("{prefix}{name}/"), listed);
        } else {
            let content = fs::read(entry.path()).expect("a file");
            listed.push((format!("{prefix}{name}"), Digest::of(&content).hex()));
        }
    }
}

#[test]
fn the_tool_verifies_what_is_signed_here() {
    for (name, paths) in FOLDERS {
        let house = House::new(name, paths);
        house.sign();
        assert_eq!(
            house.tool_verifies(),
            (true, "Verification succeeded\n".to_owned()),
            "{name}"
        );
    }
}

#[test]
fn what_the_tool_signs_verifies_here() {
    for (name, paths) in FOLDERS {
        let house = House::new(name, paths);
        let signed = house.tool("sign", ["--private_key", "key.pem"]);
        assert_eq!(signed, (true, "Signing succeeded\n".to_owned()), "{name}");
        assert_eq!(house.verify(), Ok(()), "{name}");
    }
}

#[test]
fn both_refuse_the_same_folders() {
    type Change = fn(&House);
    let changes: [(&str, Change, Result<(), Code>); 8] = [
        ("nothing", |_| (), Ok(())),
        ("git's", |house| house.write(".gitignore", "*"), Ok(())),
        (
            "changed",
            |house| house.write("a/1", "other"),
            Err(Code::NotAsSigned),
        ),
        (
            "more",
            |house| house.write("a/2", ""),
            Err(Code::NotAsSigned),
        ),
        (
            "fewer",
            |house| fs::remove_file(house.folder.join("a/1")).expect("a file"),
            Err(Code::NotAsSigned),
        ),
        (
            "renamed",
            |house| {
                let (from, to) = (house.folder.join("a/1"), house.folder.join("a/one"));
                fs::rename(from, to).expect("a file");
            },
            Err(Code::NotAsSigned),
        ),
        (
            "another key",
            |house| {
                let other = SigningKey::from_random(&[9; 32]).expect("a key");
                let bundle = sign(&house.listed(), "m", &other).expect("a signature");
                fs::write(house.signature(), bundle).expect("a file");
            },
            Err(Code::OtherSigner),
        ),
        (
            "cut off",
            |house| {
                let bundle = fs::read(house.signature()).expect("a file");
                fs::write(house.signature(), &bundle[..bundle.len() - 1]).expect("a file");
            },
            Err(Code::NotASignature),
        ),
    ];
    for (what, change, expect) in changes {
        let house = House::new("changing", &["a/1", "b"]);
        house.sign();
        change(&house);
        assert_eq!(house.verify(), expect, "{what}");
        let (content, said) = house.tool_verifies();
        assert_eq!(content, expect.is_ok(), "{what}: {said}");
    }
}
