//! The log: lines on stderr, as text or as JSON. Every program calls its two keys `log.filter` and
//! `log.format`.

use pomona_domain::Fault;
use tracing_subscriber::EnvFilter;

use crate::bad;

/// Refuses a format that the log does not have.
pub fn check_log(format: &str) -> Result<(), Fault> {
    match format {
        "text" | "json" => Ok(()),
        other => Err(bad(format!(
            "`log.format` is `{other}`, it may be `text` or `json`"
        ))),
    }
}

/// Starts the log of this process, once.
pub fn start_log(filter: &str, format: &str) -> Result<(), Fault> {
    check_log(format)?;
    let filter = EnvFilter::try_new(filter)
        .map_err(|error| bad(format!("`log.filter` cannot be read: {error}")))?;
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_target(false);
    if format == "json" {
        log.json().init();
    } else {
        log.with_ansi(false).init();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pomona_domain::Code;

    #[test]
    fn what_the_log_cannot_be_is_refused() {
        assert_eq!(check_log("text").and(check_log("json")), Ok(()));
        let table = [
            (check_log(""), "`log.format` is ``"),
            (start_log("info", "xml"), "`log.format` is `xml`"),
            (
                start_log("loud=very=much", "text"),
                "`log.filter` cannot be",
            ),
        ];
        for (refused, begin) in table {
            let fault = refused.unwrap_err();
            assert_eq!(fault.code, Code::BadConfig);
            assert!(fault.message.starts_with(begin), "{fault}");
        }
    }
}
