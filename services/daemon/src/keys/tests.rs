//! A program of four keys: its layers, what it refuses, and what is written of it.

use serde::Deserialize;

use super::*;

const KEYS: Keys = Keys {
    prefix: "POMONA_PRESS_",
    program: "pomona-press",
    all: &[
        key("name", "\"cox\"", "Name of the press."),
        key("open", "false", "Whether anybody may press."),
        key("juice.litres", "7", "Litres a day."),
        key("juice.kind", "\"clear\"", "`clear` or `cloudy`."),
    ],
};

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Press {
    name: String,
    open: bool,
    juice: Juice,
}

#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Juice {
    litres: u32,
    kind: String,
}

fn press(name: &str, open: bool, litres: u32, kind: &str) -> Press {
    Press {
        name: name.to_owned(),
        open,
        juice: Juice {
            litres,
            kind: kind.to_owned(),
        },
    }
}

type Flags = Vec<(&'static str, Option<Value>)>;

fn load(file: &str, environment: &[(&str, &str)], flags: Flags) -> Result<Press, Fault> {
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    KEYS.layered(&file.parse().unwrap(), environment.collect(), flags)
}

#[test]
fn a_flag_beats_a_variable_and_a_variable_beats_the_file() {
    let file = "name = 'a'\nopen = true\n[juice]\nlitres = 1\nkind = 'a'";
    let variables = [
        ("POMONA_PRESS_NAME", "b"),
        ("POMONA_PRESS_OPEN", "false"),
        ("POMONA_PRESS_JUICE_LITRES", "2"),
    ];
    let flags = || -> Flags {
        vec![
            ("juice.litres", Some(Value::Integer(3))),
            ("name", None),
            ("open", Some(Value::Boolean(true))),
        ]
    };
    for (file, variables, flags, expect) in [
        ("", &variables[..0], vec![], press("cox", false, 7, "clear")),
        (file, &variables[..0], vec![], press("a", true, 1, "a")),
        (file, &variables[..], vec![], press("b", false, 2, "a")),
        (file, &variables[..], flags(), press("b", true, 3, "a")),
        ("", &variables[..0], flags(), press("cox", true, 3, "clear")),
    ] {
        assert_eq!(load(file, variables, flags), Ok(expect));
    }
}

#[test]
fn what_is_not_understood_is_refused() {
    let all = "`pomona-press check-config` prints every key";
    let near = |name: &str| format!("did you mean `{name}`? {all}");
    let set = |value| vec![("juice.litres", Some(value))];
    let table = [
        (
            load("[juice]\nlitre = 1", &[], vec![]),
            "`juice.litre` is not a key of the configuration",
            Some(near("juice.litres")),
        ),
        (
            load("juice = 1", &[], vec![]),
            "`juice` is not a key of the configuration",
            Some(all.to_owned()),
        ),
        (
            load("", &[("POMONA_PRESS_NMAE", "x")], vec![]),
            "the variable `POMONA_PRESS_NMAE` names no key of the configuration",
            Some(near("POMONA_PRESS_NAME")),
        ),
        (
            load("", &[("POMONA_PRESS_LID", "x")], vec![]),
            "the variable `POMONA_PRESS_LID` names no key of the configuration",
            Some(all.to_owned()),
        ),
        (
            load("open = 1", &[], vec![]),
            "`open` is of type integer, it must be of type boolean",
            None,
        ),
        (
            load("", &[("POMONA_PRESS_JUICE_LITRES", "many")], vec![]),
            "`POMONA_PRESS_JUICE_LITRES` is `many`, it must be of type integer",
            None,
        ),
        (
            load("", &[("POMONA_PRESS_OPEN", "1")], vec![]),
            "`POMONA_PRESS_OPEN` is `1`, it must be of type boolean",
            None,
        ),
        (
            load("", &[], set(Value::Boolean(true))),
            "`juice.litres` is of type boolean, it must be of type integer",
            None,
        ),
        (
            load("", &[], vec![("weight", None)]),
            "`weight` is not a key of the configuration",
            Some(all.to_owned()),
        ),
    ];
    for (loaded, message, hint) in table {
        let fault = loaded.unwrap_err();
        assert_eq!(fault.code, Code::BadConfig);
        assert_eq!((fault.message.as_str(), fault.hint), (message, hint));
    }
    // The type is right, the number is not.
    let fault = load("", &[], set(Value::Integer(-1))).unwrap_err();
    assert_eq!(fault.code, Code::BadConfig);
}

#[test]
fn what_is_written_names_every_key_and_reads_back() {
    let expect = "\
# The press's configuration: every key with its default.
# Flags go before variables, variables before this file. Unknown keys are refused.

# Name of the press.
# POMONA_PRESS_NAME
name = \"cox\"

# Whether anybody may press.
# POMONA_PRESS_OPEN
open = false

[juice]
# Litres a day.
# POMONA_PRESS_JUICE_LITRES
litres = 7

# `clear` or `cloudy`.
# POMONA_PRESS_JUICE_KIND
kind = \"clear\"
";
    assert_eq!(KEYS.file(), expect);
    let table: Table = expect.parse().unwrap();
    assert_eq!(table, KEYS.defaults());
    let odd = press("a \"b\"\n[c]", true, 9, "\\");
    let written = KEYS.render(&odd);
    assert!(written.contains("\n# Litres a day.\n# POMONA_PRESS_JUICE_LITRES\nlitres = 9\n"));
    assert_eq!(load(&written, &[], vec![]), Ok(odd));
}

#[test]
fn a_file_that_is_not_there_and_one_that_is_none_have_codes() {
    assert_eq!(read(None), Ok(Table::new()));
    let fault = read(Some(Path::new("no/such/file"))).unwrap_err();
    assert_eq!(fault.code, Code::LocalFile);
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fault = read(Some(&here.join("src/lib.rs"))).unwrap_err();
    assert_eq!(fault.code, Code::BadConfig);
    assert!(fault.message.contains("is not TOML"), "{fault}");
    let table = read(Some(&here.join("Cargo.toml"))).unwrap();
    assert_eq!(
        table["package"]["name"],
        Value::String("pomona-daemon".to_owned())
    );
}
