//! Webhooks and what they were told.

use pomona_api::v1::webhooks::{WebhookTested, WebhookView};
use pomona_domain::Timestamp;
use pomona_domain::hook::{Delivery, DeliveryState, HookStatus};

use crate::human::{ago, moment};
use crate::printer::Style;
use crate::table::{Grid, Text, Tone, card, toned};

fn status(row: &WebhookView) -> Text {
    match row.hook.status {
        HookStatus::Active => toned("active", Tone::Good),
        HookStatus::Disabled => toned("disabled", Tone::Warn),
    }
}

fn failed(count: u64) -> Text {
    let tone = if count == 0 { Tone::Dim } else { Tone::Bad };
    toned(count, tone)
}

/// Webhooks.
pub fn list(style: Style, rows: &[WebhookView]) -> String {
    let titles = [
        "webhook", "status", ">waiting", ">failed", "?events", "address", "?id",
    ];
    let mut grid = Grid::new(style, &titles);
    for row in rows {
        grid.row(vec![
            toned(&row.hook.name, Tone::Bold),
            status(row),
            row.waiting.into(),
            failed(row.failed),
            row.hook.events.len().into(),
            (&row.hook.url).into(),
            toned(row.hook.id, Tone::Dim),
        ]);
    }
    grid.render()
}

/// One webhook, and its secret when it was just drawn.
pub fn show(style: Style, now: Timestamp, row: &WebhookView, secret: Option<&str>) -> String {
    let hook = &row.hook;
    let mut pairs: Vec<(&str, Text)> = vec![
        ("webhook", toned(&hook.name, Tone::Bold)),
        ("id", hook.id.into()),
        ("address", (&hook.url).into()),
        ("status", status(row)),
        ("events", hook.events.join(", ").into()),
        ("words of", hook.flavour.as_str().into()),
        ("waiting", row.waiting.into()),
        ("failed", failed(row.failed)),
        (
            "made",
            format!(
                "{} ({})",
                moment(hook.created_at),
                ago(hook.created_at, now)
            )
            .into(),
        ),
    ];
    if !hook.description.is_empty() {
        pairs.insert(1, ("for", (&hook.description).into()));
    }
    if let Some(secret) = secret {
        pairs.push(("secret", toned(secret, Tone::Warn)));
    }
    card(style, pairs)
}

/// What a receiver made of a test.
pub fn tested(style: Style, row: &WebhookTested) -> String {
    let mut text = match (row.success, row.status) {
        (true, Some(code)) => style.green(&format!("taken with {code}")),
        (_, Some(code)) => style.red(&format!("answered {code}")),
        (_, None) => style.red(row.error.as_deref().unwrap_or("no answer")),
    };
    if let Some(body) = &row.body {
        text.push_str("\n\n");
        // It comes from anybody: nothing of it steers the terminal.
        text.extend(body.chars().filter(|c| !c.is_control() || *c == '\n'));
    }
    text
}

/// Deliveries.
pub fn deliveries(style: Style, now: Timestamp, rows: &[Delivery]) -> String {
    let titles = [
        "delivery",
        "event",
        "about",
        "state",
        ">attempts",
        "?happened",
        "why",
    ];
    let mut grid = Grid::new(style, &titles);
    for row in rows {
        let tone = match row.state {
            DeliveryState::Pending => Tone::Busy,
            DeliveryState::Delivered => Tone::Good,
            DeliveryState::Failed | DeliveryState::Dropped => Tone::Bad,
        };
        grid.row(vec![
            row.id.into(),
            (&row.topic).into(),
            (&row.subject).into(),
            toned(row.state.as_str(), tone),
            row.attempts.into(),
            toned(ago(row.created_at, now), Tone::Dim),
            toned(row.last_error.as_deref().unwrap_or_default(), Tone::Dim),
        ]);
    }
    grid.render()
}
