use super::*;

fn end(word: Option<Word>, status: Status) -> End {
    End {
        word,
        status,
        started: true,
        killed: false,
        tail: Vec::new(),
    }
}

fn failed(code: Code) -> End {
    let fault = Fault::new(code, "why");
    end(Some(Word::Failed { fault, retry: true }), Status::Code(4))
}

fn finished() -> End {
    end(Some(Word::Finished), Status::Code(0))
}

fn stopped() -> End {
    end(Some(Word::Stopped), Status::Code(3))
}

fn killed(end: End) -> End {
    End {
        killed: true,
        ..end
    }
}

fn mute(status: Status) -> End {
    end(None, status)
}

/// Ranks that have numbers when there are several.
fn trainers(ends: &[End]) -> (Whose, Option<u32>) {
    (Whose::Trainer, (ends.len() > 1).then_some(0))
}

/// An outcome in a few words.
fn short(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Finished => "finished".to_owned(),
        Outcome::Stopped => "stopped".to_owned(),
        Outcome::Killed => "killed".to_owned(),
        Outcome::Failed { fault, .. } => format!("failed {}", fault.code),
        Outcome::Crashed { fault } => format!("crashed {}: {fault}", fault.code),
        Outcome::NotStarted { fault } => format!("not started {}: {fault}", fault.code),
    }
}

#[test]
fn every_kind_of_end() {
    let stalled = Cause::Limit(Fault::new(Code::Stalled, "no step"));
    let broken = Cause::Broken(Outcome::Crashed {
        fault: Fault::new(Code::LocalFile, "no file"),
    });
    let table: &[(Option<Cause>, Vec<End>, &str)] = &[
        (None, vec![finished()], "finished"),
        (None, vec![finished(), finished()], "finished"),
        (None, vec![stopped(), stopped()], "stopped"),
        (None, vec![finished(), stopped()], "stopped"),
        // It ended well before our kill reached it.
        (Some(Cause::Asked), vec![finished()], "finished"),
        (Some(Cause::GraceOver), vec![stopped()], "stopped"),
        (
            Some(Cause::Asked),
            vec![killed(mute(Status::Signal(9)))],
            "killed",
        ),
        (
            Some(Cause::GraceOver),
            vec![stopped(), killed(mute(Status::Signal(9)))],
            "killed",
        ),
        (
            Some(stalled.clone()),
            vec![killed(mute(Status::Signal(9)))],
            "crashed E0306: no step",
        ),
        (Some(stalled), vec![finished()], "finished"),
        // Its answer is lost: that it ended well does not help.
        (Some(broken), vec![finished()], "crashed E0906: no file"),
        (None, vec![failed(Code::NotANumber)], "failed E0601"),
        (
            None,
            vec![mute(Status::Code(0))],
            "crashed E0604: the trainer ended with status 0 without a word",
        ),
        // Its word and its status must agree.
        (
            None,
            vec![end(Some(Word::Finished), Status::Signal(11))],
            "crashed E0604: the trainer was ended by signal 11 (SIGSEGV) without a word",
        ),
        // The rank that began it is named, whoever was noticed first.
        (
            Some(Cause::RankLost),
            vec![failed(Code::RankLost), mute(Status::Signal(6))],
            "crashed E0604: rank 1 was ended by signal 6 (SIGABRT) without a word",
        ),
        (
            Some(Cause::RankLost),
            vec![killed(mute(Status::Signal(9))), failed(Code::NotANumber)],
            "failed E0601",
        ),
        (
            Some(Cause::RankLost),
            vec![failed(Code::RankLost), killed(mute(Status::Signal(9)))],
            "failed E0602",
        ),
    ];
    for (cause, ends, expect) in table {
        assert_eq!(
            short(&outcome(cause.as_ref(), ends, trainers(ends), false)),
            *expect,
            "{ends:?}"
        );
    }
}

#[test]
fn a_kill_for_want_of_memory_says_so() {
    let ends = [mute(Status::Signal(9))];
    assert!(short(&outcome(None, &ends, trainers(&ends), true)).starts_with("crashed E0605"));
    assert!(short(&outcome(None, &ends, trainers(&ends), false)).starts_with("crashed E0604"));
    let ends = [mute(Status::Signal(11))];
    assert!(short(&outcome(None, &ends, trainers(&ends), true)).starts_with("crashed E0604"));
}

#[test]
fn a_program_that_is_not_there_costs_the_trial_nothing() {
    let mut one = mute(Status::Code(127));
    one.started = false;
    one.tail = vec!["no such file".to_owned()];
    assert_eq!(
        short(&outcome(
            None,
            &[one.clone()],
            (Whose::Trainer, None),
            false
        )),
        "not started E0902: the trainer cannot be started; its log ends with: no such file"
    );
    one.started = true;
    assert!(
        short(&outcome(None, &[one], (Whose::Trainer, None), false)).starts_with("crashed E0604")
    );
}

#[test]
fn the_log_s_end_is_short() {
    assert_eq!(last_words(&[]), "");
    let lines: Vec<String> = (0..9).map(|n| format!("line {n}")).collect();
    assert_eq!(
        last_words(&lines),
        "; its log ends with: line 4 / line 5 / line 6 / line 7 / line 8"
    );
    let long = vec!["ä".repeat(4000)];
    assert!(last_words(&long).len() < 700);
}

#[test]
fn a_program_says_nothing_and_its_end_says_all() {
    let told = |status, was_asked| {
        let (word, status) = of_program(status, was_asked);
        let end = End {
            word,
            status,
            started: true,
            killed: false,
            tail: vec!["Traceback".to_owned()],
        };
        let outcome = outcome(None, &[end], (Whose::Program, None), false);
        if let Outcome::Crashed { fault } = outcome {
            format!("{} {fault}", fault.code)
        } else {
            format!("{outcome:?}")
        }
    };
    assert_eq!(told(Status::Code(0), false), "Finished");
    let failed = "E0621 the program ended with status 1; its log ends with: Traceback";
    assert_eq!(told(Status::Code(1), false), failed);
    let killed = "E0621 the program was ended by signal 9 (SIGKILL); its log ends with: Traceback";
    assert_eq!(told(Status::Code(137), false), killed);
    for asked in [
        Status::Code(0),
        Status::Code(143),
        Status::Code(1),
        Status::Signal(15),
    ] {
        assert_eq!(told(asked, true), "Stopped");
    }
}

#[test]
fn a_rank_is_told_by_its_number_in_the_whole_lease() {
    let ends = [finished(), mute(Status::Code(1))];
    let said = short(&outcome(None, &ends, (Whose::Trainer, Some(2)), false));
    assert!(said.contains("rank 3 ended with status 1"), "{said}");
}
