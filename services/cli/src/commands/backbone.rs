//! `backbone`: pretrained networks in the catalogue.

use pomona_api::client::file_digest;
use pomona_api::v1::catalogue::AddBackbone;
use pomona_domain::{Fault, name};
use std::path::Path;

use super::Done;
use super::session::{Session, all, key};
use super::task;
use crate::args::catalogue::BackboneCommand;
use crate::human::now;
use crate::local::cannot;
use crate::views;

/// `pomona backbone`.
pub async fn run(command: BackboneCommand, session: Session) -> Result<Done, Fault> {
    match command {
        BackboneCommand::Add {
            name,
            arch,
            weights,
        } => add(name, arch, &weights, &session).await,
        BackboneCommand::List => list(&session).await,
        BackboneCommand::Show { name, frozen_depth } => {
            show(&name, frozen_depth.as_deref(), &session).await
        }
    }
}

async fn add(name: String, arch: String, file: &Path, session: &Session) -> Result<Done, Fault> {
    name::check("name", &name)?;
    // Opened first for the better message.
    std::fs::File::open(file).map_err(|error| cannot("read", file, &error))?;
    session.client.ready().await?;
    let (weights, size) = file_digest(file).await?;
    session.upload(weights, file, size).await?;
    let body = AddBackbone {
        name: name.clone(),
        arch,
        weights,
    };
    let task = session.client.backbone_add(&body, &key()).await?;
    task::finish(session, task, &format!("importing `{name}`")).await?;
    let row = session.client.backbone_get(&name).await?;
    session.printer.say(&format!("backbone `{name}` is ready"));
    session
        .printer
        .data(&row, |style| views::catalogue::backbone(style, &row, None));
    Ok(Done::Well)
}

async fn list(session: &Session) -> Result<Done, Fault> {
    let page = all(|query| async move { session.client.backbone_list(&query).await }).await?;
    session.printer.data(&page, |style| {
        if page.items.is_empty() {
            return "no backbone yet: `pomona backbone add NAME --arch ARCH --weights FILE`"
                .to_owned();
        }
        views::catalogue::backbones(style, now(), &page.items)
    });
    Ok(Done::Well)
}

async fn show(name: &str, depth: Option<&str>, session: &Session) -> Result<Done, Fault> {
    let row = session.client.backbone_get(name).await?;
    let frozen = depth
        .map(|depth| views::catalogue::frozen_blocks(&row, depth))
        .transpose()?;
    session.printer.data(&row, |style| {
        views::catalogue::backbone(style, &row, frozen)
    });
    Ok(Done::Well)
}
