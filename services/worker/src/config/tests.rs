//! Layers, refusals and the file in `config/`.

use super::*;

fn load(file: &str, environment: &[(&str, &str)], flags: &Flags) -> Result<Config, Fault> {
    let environment = environment
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    Config::layered(&file.parse().unwrap(), environment, flags)
}

#[test]
fn the_file_in_config_says_every_key_with_its_default() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../config/worker.toml");
    let text = std::fs::read_to_string(path).unwrap();
    assert_eq!(text, KEYS.file());
    let table: Table = text.parse().unwrap();
    assert_eq!(table, KEYS.defaults());
}

#[test]
fn the_defaults_are_a_valid_configuration_and_it_prints_as_one() {
    let config = load("", &[], &Flags::default()).unwrap();
    assert_eq!(config.address().unwrap().map(|a| a.port()), Some(7879));
    assert_eq!(config.slots(), None);
    assert!(!config.name().is_empty());
    let again = load(&config.render(), &[], &Flags::default()).unwrap();
    assert_eq!(again, config);
}

#[test]
fn a_flag_beats_a_variable_and_a_variable_beats_the_file() {
    let file = "name = 'a'\nlisten = '127.0.0.1:1'\n[slots]\ncount = 3\n[cache]\nmax_bytes = 7";
    let environment = [
        ("POMONA_WORKER_LISTEN", "127.0.0.1:2"),
        ("POMONA_WORKER_SLOTS_COUNT", "4"),
        ("POMONA_WORKER_SLOTS_CPU_ONLY", "true"),
    ];
    let flags = Flags {
        slots: Some(5),
        ..Flags::default()
    };
    let config = load(file, &environment, &flags).unwrap();
    assert_eq!(config.name(), "a");
    assert_eq!(config.listen, "127.0.0.1:2");
    assert_eq!(config.slots(), Some(5));
    assert!(config.slots.cpu_only);
    assert_eq!(config.cache.max_bytes, 7);
}

#[test]
fn what_is_not_understood_is_refused() {
    type Row<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str);
    let table: &[Row<'_>] = &[
        ("slot = 3", &[], "`slot` is not a key of the configuration"),
        (
            "[slots]\ncount = 'many'",
            &[],
            "`slots.count` is of type string, it must be of type integer",
        ),
        (
            "[log]\nformat = 'xml'",
            &[],
            "`log.format` is `xml`, it may be `text` or `json`",
        ),
        ("[stall]\nfactor = 0", &[], "`stall.factor` must be above 0"),
        (
            "labels = 'zone'",
            &[],
            "`labels` holds `zone`, which is not `key=value`",
        ),
        (
            "",
            &[("POMONA_WORKER_SLOT", "1")],
            "the variable `POMONA_WORKER_SLOT` names no key of the configuration",
        ),
        (
            "",
            &[("POMONA_WORKER_SLOTS_CPU_ONLY", "perhaps")],
            "`POMONA_WORKER_SLOTS_CPU_ONLY` is `perhaps`, it must be of type boolean",
        ),
    ];
    for (file, environment, expect) in table {
        let fault = load(file, environment, &Flags::default()).unwrap_err();
        assert_eq!(
            (fault.code, fault.message.as_str()),
            (Code::BadConfig, *expect)
        );
    }
}

#[test]
fn an_address_that_is_none_and_a_trainer_that_is_not_there_have_codes() {
    let config = load("listen = 'here'", &[], &Flags::default()).unwrap();
    assert_eq!(config.address().unwrap_err().code, Code::BadListen);
    assert_eq!(
        load("listen = ''", &[], &Flags::default())
            .unwrap()
            .address(),
        Ok(None)
    );
    // The manifest is there and is no program.
    for program in [
        "no/such/trainer",
        concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"),
    ] {
        let file = format!("[trainer]\nprogram = '{program}'");
        let fault = load(&file, &[], &Flags::default()).unwrap().trainer();
        assert_eq!(fault.unwrap_err().code, Code::MissingProgram);
    }
    let file = "[trainer]\nprogram = '/proc/self/exe'";
    let trainer = load(file, &[], &Flags::default())
        .unwrap()
        .trainer()
        .unwrap();
    assert_eq!(
        trainer,
        std::env::current_exe().unwrap().canonicalize().unwrap()
    );
}

#[test]
fn labels_are_pairs() {
    let config = load("labels = 'zone=a, disk=nvme'", &[], &Flags::default()).unwrap();
    let labels = config.labels().unwrap();
    let pairs: Vec<_> = labels.iter().map(|(k, v)| format!("{k}:{v}")).collect();
    assert_eq!(pairs, ["disk:nvme", "zone:a"]);
}
