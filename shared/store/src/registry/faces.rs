//! Models and versions as they are shown, and searches of them.

use std::collections::BTreeMap;

use pomona_domain::Timestamp;
use pomona_domain::model::{Alias, Version};
use pomona_migrations::tables::{ModelTags, Models, VersionTags, Versions};
use pomona_tracking::filter::{
    Comparison, ModelVersionAttribute, ModelVersionField, Op, RegisteredModelField, Value,
};
use pomona_tracking::order::{ModelVersionOrder, Order, RegisteredModelOrder};
use sea_orm::sea_query::{
    Expr, ExprTrait as _, Order as Direction, Query, SelectStatement, SimpleExpr,
};
use sea_orm::{ConnectionTrait as _, DbBackend};

use crate::read::registry::{aliases, newest};
use crate::rows::decode;
use crate::tracking::{compare, direction, pair};
use crate::{Page, PageRequest, Store, StoreError};

/// How many models one statement names.
const NAMES_PER_STATEMENT: usize = 500;
/// The tag of what MLflow keeps among models and is none.
const IS_PROMPT: &str = "mlflow.prompt.is_prompt";

/// A model as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct ModelFace {
    /// Its name.
    pub name: String,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it or what is said of it last changed.
    pub updated_at: Timestamp,
    /// What people say of it.
    pub description: String,
    /// Its tags, by key.
    pub tags: Vec<(String, String)>,
    /// Its aliases, by name.
    pub aliases: Vec<Alias>,
    /// The number of its newest version; numbers begin at 1.
    pub newest: u32,
}

/// A version as it is shown.
#[derive(Debug, Clone, PartialEq)]
pub struct VersionFace {
    /// What never changes.
    pub version: Version,
    /// Where its files came from.
    pub source: String,
    /// The run that made it.
    pub run_id: Option<String>,
    /// When it or what is said of it last changed.
    pub updated_at: Timestamp,
    /// What people say of it.
    pub description: String,
    /// `None`, `Staging`, `Production` or `Archived`: a word.
    pub stage: String,
    /// Its tags, by key.
    pub tags: Vec<(String, String)>,
    /// The aliases that point to it, by name.
    pub aliases: Vec<String>,
}

/// Which models are searched, and which of those found are wanted.
#[derive(Debug, Clone, Default)]
pub struct ModelSearch {
    /// All of these must hold.
    pub filter: Vec<Comparison<RegisteredModelField>>,
    /// In this order.
    pub order: Vec<Order<RegisteredModelOrder>>,
    /// From this one on.
    pub offset: u64,
    /// So many.
    pub limit: u64,
}

/// Which versions are searched, and which of those found are wanted.
#[derive(Debug, Clone, Default)]
pub struct VersionSearch {
    /// All of these must hold.
    pub filter: Vec<Comparison<ModelVersionField>>,
    /// In this order.
    pub order: Vec<Order<ModelVersionOrder>>,
    /// From this one on.
    pub offset: u64,
    /// So many.
    pub limit: u64,
}

fn models() -> SelectStatement {
    Query::select()
        .columns([
            (Models::Table, Models::Name),
            (Models::Table, Models::CreatedAt),
            (Models::Table, Models::UpdatedAt),
            (Models::Table, Models::Description),
        ])
        .from(Models::Table)
        .and_where(Expr::col((Models::Table, Models::DeletedAt)).is_null())
        .to_owned()
}

fn versions() -> SelectStatement {
    Query::select()
        .columns([
            (Versions::Table, Versions::Doc),
            (Versions::Table, Versions::Source),
            (Versions::Table, Versions::RunId),
            (Versions::Table, Versions::UpdatedAt),
            (Versions::Table, Versions::Description),
            (Versions::Table, Versions::Stage),
        ])
        .from(Versions::Table)
        .and_where(Expr::col((Versions::Table, Versions::DeletedAt)).is_null())
        .to_owned()
}

/// Whether a condition on the tag of prompts asks for them. MLflow's client sends one with every
/// search of models, and models have no such tag: `!= 'true'` must not ask for the tag.
fn is_yes(op: Op, value: &Value) -> bool {
    let Value::Text(text) = value else {
        return false;
    };
    (op == Op::Equal && text.eq_ignore_ascii_case("true"))
        || (op == Op::NotEqual && text.eq_ignore_ascii_case("false"))
}

/// A condition on a version's tag.
fn tagged(backend: DbBackend, key: &str, op: Op, value: &Value) -> SimpleExpr {
    use {VersionTags as T, Versions as V};
    let mut has = Query::select();
    has.expr(Expr::val(1))
        .from(T::Table)
        .and_where(Expr::col((T::Table, T::Model)).equals((V::Table, V::Model)))
        .and_where(Expr::col((T::Table, T::Number)).equals((V::Table, V::Number)))
        .and_where(Expr::col((T::Table, T::Key)).eq(key));
    if op == Op::IsNull {
        return Expr::exists(has).not();
    }
    if op != Op::IsNotNull {
        has.and_where(compare(backend, Expr::col((T::Table, T::Value)), op, value));
    }
    Expr::exists(has)
}

impl Store {
    /// A model, with what is said of it.
    pub async fn model_face(&self, name: &str) -> Result<Option<ModelFace>, StoreError> {
        let mut query = models();
        query.and_where(Expr::col((Models::Table, Models::Name)).eq(name));
        Ok(self.model_faces(&query).await?.pop())
    }

    /// Models, by name.
    pub async fn model_list(&self, page: &PageRequest) -> Result<Page<ModelFace>, StoreError> {
        let limit = page.limit()?;
        let name = || Expr::col((Models::Table, Models::Name));
        let mut query = models();
        query.order_by_expr(name(), Direction::Asc).limit(limit + 1);
        if let Some(after) = &page.token {
            query.and_where(name().gt(after.as_str()));
        }
        let models = self.model_faces(&query).await?;
        Ok(Page::cut(models, limit, |model| model.name.clone()))
    }

    /// Searches models. What MLflow calls a prompt is shown only when the filter asks for it.
    pub async fn model_search(&self, search: &ModelSearch) -> Result<Vec<ModelFace>, StoreError> {
        let backend = self.readers.get_database_backend();
        let columns = (
            ModelTags::Table,
            ModelTags::Model,
            ModelTags::Key,
            ModelTags::Value,
        );
        let owner = || Expr::col((Models::Table, Models::Name));
        let mut query = models();
        let mut wants_prompts = false;
        for condition in &search.filter {
            let (op, value) = (condition.op, &condition.value);
            query.and_where(match &condition.field {
                RegisteredModelField::Name => compare(backend, owner(), op, value),
                RegisteredModelField::Tag(key) if key == IS_PROMPT => {
                    wants_prompts = is_yes(op, value);
                    continue;
                }
                RegisteredModelField::Tag(key) => pair(backend, columns, owner(), key, (op, value)),
            });
        }
        let yes = Value::Text("true".to_owned());
        let is_prompt = pair(backend, columns, owner(), IS_PROMPT, (Op::Equal, &yes));
        query.and_where(if wants_prompts {
            is_prompt
        } else {
            is_prompt.not()
        });
        for order in &search.order {
            let column = match order.field {
                RegisteredModelOrder::Name => Models::Name,
                RegisteredModelOrder::LastUpdated => Models::UpdatedAt,
            };
            query.order_by((Models::Table, column), direction(order.descending));
        }
        query.offset(search.offset).limit(search.limit);
        self.model_faces(&query).await
    }

    async fn model_faces(&self, query: &SelectStatement) -> Result<Vec<ModelFace>, StoreError> {
        let mut faces = Vec::new();
        for row in self.readers.query_all(query).await? {
            let created: i64 = row.try_get_by_index(1)?;
            let updated: Option<i64> = row.try_get_by_index(2)?;
            faces.push(ModelFace {
                name: row.try_get_by_index(0)?,
                created_at: Timestamp(created),
                updated_at: Timestamp(updated.unwrap_or(created)),
                description: row.try_get_by_index(3)?,
                tags: Vec::new(),
                aliases: Vec::new(),
                newest: 0,
            });
        }
        let names: Vec<String> = faces.iter().map(|face| face.name.clone()).collect();
        if names.is_empty() {
            return Ok(faces);
        }
        let mut tags: BTreeMap<String, Vec<(String, String)>> = BTreeMap::new();
        self.pairs(
            (
                ModelTags::Table,
                ModelTags::Model,
                ModelTags::Key,
                ModelTags::Value,
            ),
            &names,
            |name, pair| tags.entry(name).or_default().push(pair),
        )
        .await?;
        let mut pointers: BTreeMap<String, Vec<Alias>> = BTreeMap::new();
        for alias in aliases(&self.readers, Some(&names), false).await? {
            pointers.entry(alias.model.clone()).or_default().push(alias);
        }
        let newest = newest(&self.readers, &names).await?;
        for face in &mut faces {
            face.newest = newest.get(&face.name).copied().unwrap_or(0);
            face.tags = tags.remove(&face.name).unwrap_or_default();
            face.aliases = pointers.remove(&face.name).unwrap_or_default();
        }
        Ok(faces)
    }

    /// A version, with what is said of it.
    pub async fn version_face(
        &self,
        model: &str,
        number: u32,
    ) -> Result<Option<VersionFace>, StoreError> {
        let mut query = versions();
        query
            .and_where(Expr::col((Versions::Table, Versions::Model)).eq(model))
            .and_where(Expr::col((Versions::Table, Versions::Number)).eq(i64::from(number)));
        Ok(self.version_faces(&query).await?.pop())
    }

    /// Whether a model has or had this name: deleted ones keep it, for their numbers.
    pub async fn model_name_is_taken(&self, name: &str) -> Result<bool, StoreError> {
        let query = Query::select()
            .expr(Expr::val(1))
            .from(Models::Table)
            .and_where(Expr::col(Models::Name).eq(name))
            .to_owned();
        Ok(self.readers.query_one(&query).await?.is_some())
    }

    /// The newest version of each stage of each of these models, by model and stage.
    pub async fn version_latest(&self, models: &[String]) -> Result<Vec<VersionFace>, StoreError> {
        let mut faces = Vec::new();
        for some in models.chunks(NAMES_PER_STATEMENT) {
            let newest = Query::select()
                .column(Versions::Model)
                .expr(Expr::col(Versions::Number).max())
                .from(Versions::Table)
                .and_where(Expr::col(Versions::Model).is_in(some))
                .and_where(Expr::col(Versions::DeletedAt).is_null())
                .group_by_columns([Versions::Model, Versions::Stage])
                .to_owned();
            let key = Expr::tuple([
                Expr::col((Versions::Table, Versions::Model)),
                Expr::col((Versions::Table, Versions::Number)),
            ]);
            let mut query = versions();
            query
                .and_where(key.in_subquery(newest))
                .order_by((Versions::Table, Versions::Model), Direction::Asc)
                .order_by((Versions::Table, Versions::Stage), Direction::Asc);
            faces.extend(self.version_faces(&query).await?);
        }
        Ok(faces)
    }

    /// Searches versions.
    pub async fn version_search(
        &self,
        search: &VersionSearch,
    ) -> Result<Vec<VersionFace>, StoreError> {
        use Versions as V;
        let backend = self.readers.get_database_backend();
        let mut query = versions();
        let mut wants_prompts = false;
        for condition in &search.filter {
            let (op, value) = (condition.op, &condition.value);
            query.and_where(match &condition.field {
                ModelVersionField::Attribute(attribute) => {
                    let column = match attribute {
                        ModelVersionAttribute::Name => V::Model,
                        ModelVersionAttribute::VersionNumber => V::Number,
                        ModelVersionAttribute::RunId => V::RunId,
                        ModelVersionAttribute::SourcePath => V::Source,
                    };
                    compare(backend, Expr::col((V::Table, column)), op, value)
                }
                ModelVersionField::Tag(key) if key == IS_PROMPT => {
                    wants_prompts = is_yes(op, value);
                    continue;
                }
                ModelVersionField::Tag(key) => tagged(backend, key, op, value),
            });
        }
        let yes = Value::Text("true".to_owned());
        let is_prompt = tagged(backend, IS_PROMPT, Op::Equal, &yes);
        query.and_where(if wants_prompts {
            is_prompt
        } else {
            is_prompt.not()
        });
        for order in &search.order {
            let column = match order.field {
                ModelVersionOrder::Name => V::Model,
                ModelVersionOrder::VersionNumber => V::Number,
                ModelVersionOrder::Created => V::CreatedAt,
                ModelVersionOrder::LastUpdated => V::UpdatedAt,
            };
            query.order_by((V::Table, column), direction(order.descending));
        }
        query.offset(search.offset).limit(search.limit);
        self.version_faces(&query).await
    }

    async fn version_faces(&self, query: &SelectStatement) -> Result<Vec<VersionFace>, StoreError> {
        let mut faces = Vec::new();
        for row in self.readers.query_all(query).await? {
            let text: String = row.try_get_by_index(0)?;
            let version: Version = decode("versions", &text)?;
            let updated: Option<i64> = row.try_get_by_index(3)?;
            faces.push(VersionFace {
                updated_at: updated.map_or(version.created_at, Timestamp),
                version,
                source: row
                    .try_get_by_index::<Option<String>>(1)?
                    .unwrap_or_default(),
                run_id: row.try_get_by_index(2)?,
                description: row.try_get_by_index(4)?,
                stage: row.try_get_by_index(5)?,
                tags: Vec::new(),
                aliases: Vec::new(),
            });
        }
        let mut names: Vec<String> = faces
            .iter()
            .map(|face| face.version.model.clone())
            .collect();
        names.sort();
        names.dedup();
        let mut places: BTreeMap<(String, u32), usize> = BTreeMap::new();
        for (at, face) in faces.iter().enumerate() {
            places.insert((face.version.model.clone(), face.version.number), at);
        }
        for some in names.chunks(NAMES_PER_STATEMENT) {
            for ((model, number), pair) in self.version_tags(some).await? {
                if let Some(at) = places.get(&(model, number)) {
                    faces[*at].tags.push(pair);
                }
            }
            for alias in aliases(&self.readers, Some(some), false).await? {
                if let Some(at) = places.get(&(alias.model, alias.number)) {
                    faces[*at].aliases.push(alias.alias);
                }
            }
        }
        Ok(faces)
    }

    async fn version_tags(&self, models: &[String]) -> Result<Vec<VersionTag>, StoreError> {
        use VersionTags as T;
        let query = Query::select()
            .columns([T::Model, T::Number, T::Key, T::Value])
            .from(T::Table)
            .and_where(Expr::col(T::Model).is_in(models))
            .order_by(T::Key, Direction::Asc)
            .to_owned();
        let mut tags = Vec::new();
        for row in self.readers.query_all(&query).await? {
            let number: i64 = row.try_get_by_index(1)?;
            let of = (row.try_get_by_index(0)?, u32::try_from(number).unwrap_or(0));
            tags.push((of, (row.try_get_by_index(2)?, row.try_get_by_index(3)?)));
        }
        Ok(tags)
    }
}

/// Whose tag, and the tag.
type VersionTag = ((String, u32), (String, String));
