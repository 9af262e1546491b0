//! Which digests of the OCI protocol belong to which version.
//!
//! They follow from a version's files, so a row is never wrong and never changed; one of a version
//! that is gone is never found, because every look goes through the version's own row. It must
//! never say of a blob that it belongs to a model when no version of that model needs it.

use pomona_domain::model::Version;
use pomona_domain::{Digest, VersionId};
use pomona_migrations::tables::{ImageParts as Parts, Versions};
use sea_orm::ConnectionTrait as _;
use sea_orm::sea_query::{Expr, ExprTrait as _, IntoIden, Order, Query};

use crate::commit::{OnRepeat, insert};
use crate::rows::{decode, docs, parsed};
use crate::{Store, StoreError, ingest};

/// What a digest names. A version's manifest is written with everything that follows from its list
/// of files; the layer and what follows from the layer come together, later.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum ImagePart {
    /// The manifest of its files, each a layer.
    Manifest,
    /// That manifest's configuration.
    Config,
    /// One of its files.
    File,
    /// All files as one tar.
    Layer,
    /// The manifest of the image with that one layer.
    Image,
    /// That image's configuration.
    ImageConfig,
}

impl ImagePart {
    const ALL: [Self; 6] = [
        Self::Manifest,
        Self::Config,
        Self::File,
        Self::Layer,
        Self::Image,
        Self::ImageConfig,
    ];

    fn word(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Config => "config",
            Self::File => "file",
            Self::Layer => "layer",
            Self::Image => "image",
            Self::ImageConfig => "image_config",
        }
    }
}

impl std::str::FromStr for ImagePart {
    type Err = String;
    fn from_str(word: &str) -> Result<Self, String> {
        let part = Self::ALL.into_iter().find(|part| part.word() == word);
        part.ok_or_else(|| format!("`{word}` is no part of an image"))
    }
}

impl Store {
    /// Keeps the digests of a version. What is there already stays.
    pub async fn image_put(
        &self,
        version: VersionId,
        parts: &[(ImagePart, Digest)],
    ) -> Result<(), StoreError> {
        let id = version.to_string();
        let columns = [Parts::VersionId, Parts::Part, Parts::Digest].map(IntoIden::into_iden);
        ingest!(self, tx => {
            let row = |(part, digest): &(ImagePart, Digest)| {
                vec![id.as_str().into(), part.word().into(), digest.to_string().into()]
            };
            let rows = parts.iter().map(row).collect();
            insert(tx, Parts::Table.into_iden(), &columns, rows, &OnRepeat::Skip).await?;
            Ok(())
        })
    }

    /// What a digest is to a model, and to which version of it; the oldest, when it is to several.
    pub async fn image_find(
        &self,
        model: &str,
        digest: Digest,
    ) -> Result<Option<(ImagePart, Version)>, StoreError> {
        let query = Query::select()
            .column((Parts::Table, Parts::Part))
            .column((Versions::Table, Versions::Doc))
            .from(Parts::Table)
            .inner_join(
                Versions::Table,
                Expr::col((Versions::Table, Versions::Id)).equals((Parts::Table, Parts::VersionId)),
            )
            .and_where(Expr::col((Parts::Table, Parts::Digest)).eq(digest.to_string()))
            .and_where(Expr::col((Versions::Table, Versions::Model)).eq(model))
            .order_by((Versions::Table, Versions::Number), Order::Asc)
            .limit(1)
            .to_owned();
        let Some(row) = self.readers.query_one(&query).await? else {
            return Ok(None);
        };
        let part = row.try_get_by_index::<String>(0)?;
        let part = part.parse().map_err(sea_orm::DbErr::Custom)?;
        let version = decode("versions", &row.try_get_by_index::<String>(1)?)?;
        Ok(Some((part, version)))
    }

    /// The digest of a part that a version has one of, once it is known.
    pub async fn image_part(
        &self,
        version: VersionId,
        part: ImagePart,
    ) -> Result<Option<Digest>, StoreError> {
        let query = Query::select()
            .column(Parts::Digest)
            .from(Parts::Table)
            .and_where(Expr::col(Parts::VersionId).eq(version.to_string()))
            .and_where(Expr::col(Parts::Part).eq(part.word()))
            .limit(1)
            .to_owned();
        let Some(row) = self.readers.query_one(&query).await? else {
            return Ok(None);
        };
        Ok(Some(parsed(&row.try_get_by_index::<String>(0)?)?))
    }

    /// Versions of a model, or of all, whose digest of a part is not known yet, newest first.
    pub async fn image_missing(
        &self,
        model: Option<&str>,
        part: ImagePart,
        limit: u64,
    ) -> Result<Vec<Version>, StoreError> {
        let known = Query::select()
            .column(Parts::VersionId)
            .from(Parts::Table)
            .and_where(
                Expr::col((Parts::Table, Parts::VersionId)).equals((Versions::Table, Versions::Id)),
            )
            .and_where(Expr::col(Parts::Part).eq(part.word()))
            .to_owned();
        let mut query = Query::select();
        query
            .column(Versions::Doc)
            .from(Versions::Table)
            .and_where(Expr::exists(known).not())
            .order_by(Versions::CreatedAt, Order::Desc)
            .order_by(Versions::Id, Order::Desc)
            .limit(limit);
        if let Some(model) = model {
            query.and_where(Expr::col(Versions::Model).eq(model));
        }
        docs(&self.readers, "versions", &query).await
    }

    /// The numbers of a model's versions, in order.
    pub async fn version_numbers(&self, model: &str) -> Result<Vec<u32>, StoreError> {
        let query = Query::select()
            .column(Versions::Number)
            .from(Versions::Table)
            .and_where(Expr::col(Versions::Model).eq(model))
            .order_by(Versions::Number, Order::Asc)
            .to_owned();
        let mut numbers = Vec::new();
        for row in self.readers.query_all(&query).await? {
            let number: i64 = row.try_get_by_index(0)?;
            numbers.extend(u32::try_from(number));
        }
        Ok(numbers)
    }
}
