//! Data sets and backbones.

use pomona_domain::backbone::Backbone;
use pomona_domain::dataset::Dataset;
use pomona_migrations::tables::{Backbones, Datasets};
use sea_orm::sea_query::{Expr, ExprTrait as _, Order, Query};

use crate::rows::{doc, docs};
use crate::{Page, PageRequest, Store, StoreError};

impl Store {
    /// All versions of all data sets, by name and number.
    pub async fn dataset_list(&self, page: &PageRequest) -> Result<Page<Dataset>, StoreError> {
        let limit = page.limit()?;
        let mut query = Query::select();
        query
            .column(Datasets::Doc)
            .from(Datasets::Table)
            .order_by(Datasets::Name, Order::Asc)
            .order_by(Datasets::Number, Order::Asc)
            .limit(limit + 1);
        if let Some((number, name)) = page.token_pair()? {
            query.and_where(
                Expr::col(Datasets::Name)
                    .gt(name.as_str())
                    .or(Expr::col(Datasets::Name)
                        .eq(name.as_str())
                        .and(Expr::col(Datasets::Number).gt(number))),
            );
        }
        let rows: Vec<Dataset> = docs(&self.readers, "datasets", &query).await?;
        Ok(Page::cut(rows, limit, |row| {
            format!("{}.{}", row.number, row.name)
        }))
    }

    /// A version of a data set, the newest when no number is given.
    pub async fn dataset_get(
        &self,
        name: &str,
        number: Option<u32>,
    ) -> Result<Option<Dataset>, StoreError> {
        let mut query = Query::select();
        query
            .column(Datasets::Doc)
            .from(Datasets::Table)
            .and_where(Expr::col(Datasets::Name).eq(name))
            .order_by(Datasets::Number, Order::Desc)
            .limit(1);
        if let Some(number) = number {
            query.and_where(Expr::col(Datasets::Number).eq(i64::from(number)));
        }
        doc(&self.readers, "datasets", &query).await
    }

    /// Backbones, by name.
    pub async fn backbone_list(&self, page: &PageRequest) -> Result<Page<Backbone>, StoreError> {
        let limit = page.limit()?;
        let mut query = Query::select();
        query
            .column(Backbones::Doc)
            .from(Backbones::Table)
            .order_by(Backbones::Name, Order::Asc)
            .limit(limit + 1);
        if let Some(name) = &page.token {
            query.and_where(Expr::col(Backbones::Name).gt(name.as_str()));
        }
        let rows: Vec<Backbone> = docs(&self.readers, "backbones", &query).await?;
        Ok(Page::cut(rows, limit, |row| row.name.clone()))
    }

    /// A backbone by its name.
    pub async fn backbone_get(&self, name: &str) -> Result<Option<Backbone>, StoreError> {
        let query = Query::select()
            .column(Backbones::Doc)
            .from(Backbones::Table)
            .and_where(Expr::col(Backbones::Name).eq(name))
            .to_owned();
        doc(&self.readers, "backbones", &query).await
    }
}
