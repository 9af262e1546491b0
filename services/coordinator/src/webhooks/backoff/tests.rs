//! The table of pauses, and what each answer leads to.

use super::*;

const DEFAULT: Retries = Retries {
    base_ms: 5_000,
    max_ms: 21_600_000,
    attempts: 16,
};

#[test]
fn pauses_double_up_to_the_longest_and_take_about_a_day() {
    let seconds = |attempts| DEFAULT.pause_ms(attempts, 0.0) / 1000;
    let all: Vec<u64> = (1..DEFAULT.attempts).map(seconds).collect();
    assert_eq!(
        all,
        [
            5, 10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10_240, 20_480, 21_600, 21_600
        ]
    );
    let hours = all.iter().sum::<u64>() / 3600;
    assert_eq!(hours, 23);
}

#[test]
fn a_part_of_a_pause_is_drawn() {
    assert_eq!(DEFAULT.pause_ms(1, 1.0), 6_250);
    assert_eq!(DEFAULT.pause_ms(1, 0.5), 5_625);
    assert_eq!(DEFAULT.pause_ms(1, 7.0), 6_250);
    // No number of attempts is too great.
    assert_eq!(DEFAULT.pause_ms(u32::MAX, 0.0), 21_600_000);
    assert_eq!(DEFAULT.pause_ms(0, 0.0), 5_000);
}

/// What a delivery is after an attempt: how it counts, its state, the pause in seconds, and why.
fn after(attempt: u32, answer: std::result::Result<(u16, Option<u64>), &str>) -> String {
    let now = Timestamp(1_000_000);
    let answer = answer
        .map_err(str::to_owned)
        .map(|(status, retry_after_s)| Answered {
            status,
            retry_after_s,
            body: String::new(),
        });
    let (result, settled) = DEFAULT.settle(attempt, &answer, now, 0.0);
    assert_eq!(
        settled.status,
        answer.as_ref().ok().map(|answer| answer.status)
    );
    format!(
        "{} {} {} {}",
        result.as_str(),
        settled.state.as_str(),
        settled.next_at.since_ms(now) / 1000,
        settled.error.unwrap_or_default()
    )
}

#[test]
fn what_each_answer_leads_to() {
    let check = |attempt, status, expect: &str| {
        assert_eq!(
            after(attempt, Ok((status, None))),
            expect,
            "{attempt} {status}"
        );
    };
    for status in [200, 202, 204, 299] {
        check(1, status, "delivered delivered 0 ");
    }
    let moved = "retried pending 5 the receiver answered 302: redirections are not followed";
    check(1, 302, moved);
    check(1, 404, "retried pending 5 the receiver answered 404");
    check(2, 500, "retried pending 10 the receiver answered 500");
    check(16, 500, "given_up failed 0 the receiver answered 500");
    let gone = "gone failed 0 the receiver answered 410: it wants nothing any more";
    check(1, 410, gone);
    assert_eq!(after(1, Err("no answer")), "retried pending 5 no answer");
    assert_eq!(after(17, Err("no answer")), "given_up failed 0 no answer");
}

#[test]
fn a_receiver_may_ask_for_more_patience_but_not_for_ever() {
    let pause = |attempt, seconds| {
        let text = after(attempt, Ok((503, Some(seconds))));
        text.split(' ').nth(2).unwrap().to_owned()
    };
    assert_eq!(pause(1, 60), "60");
    assert_eq!(pause(5, 1), "80");
    assert_eq!(pause(1, u64::MAX), "21600");
}
