//! The API's description, `GET /openapi.json`: made from the table of routes and from the types of
//! the bodies, so that nothing can be served and not be described.
//!
//! It must never say more than the code: what is not in the table does not exist.

pub mod rows;

use pomona_api::v1::{DetailedErrorBody, IDEMPOTENCY_KEY, Page};
use std::borrow::Cow;
use std::sync::LazyLock;
use utoipa::openapi::path::{
    HttpMethod, Operation, OperationBuilder, Parameter, ParameterBuilder, ParameterIn, Paths,
};
use utoipa::openapi::request_body::{RequestBody, RequestBodyBuilder};
use utoipa::openapi::schema::{Components, KnownFormat, ObjectBuilder, SchemaFormat, Type};
use utoipa::openapi::{
    ContentBuilder, InfoBuilder, OpenApi, OpenApiBuilder, Ref, RefOr, Required, Response,
    ResponseBuilder, Schema,
};
use utoipa::{PartialSchema, ToSchema};

use crate::http::routes::{self, Route};

const JSON: &str = "application/json";
const BINARY: &str = "application/octet-stream";

/// Name → schema.
type Schemas = Vec<(String, RefOr<Schema>)>;

/// What a route is for, takes and answers.
#[derive(Clone)]
pub struct About {
    summary: &'static str,
    parameters: Vec<Parameter>,
    body: Option<RequestBody>,
    status: &'static str,
    answer: Response,
    schemas: Schemas,
}

/// Begins the description of a route that answers 200 and nothing.
pub fn about(summary: &'static str) -> About {
    About {
        summary,
        parameters: Vec::new(),
        body: None,
        status: "200",
        answer: Response::new("done"),
        schemas: Vec::new(),
    }
}

impl About {
    /// It takes the fields of `Q` as its query.
    pub fn query<Q: ToSchema>(mut self) -> Self {
        if let RefOr::T(Schema::Object(fields)) = Q::schema() {
            for (name, schema) in fields.properties {
                let required = fields.required.contains(&name);
                self.parameters
                    .push(parameter(&name, ParameterIn::Query, required, schema));
            }
        }
        Q::schemas(&mut self.schemas);
        self
    }

    /// It may be repeated under a key.
    pub fn keyed(mut self) -> Self {
        let (name, place) = (IDEMPOTENCY_KEY, ParameterIn::Header);
        self.parameters.push(parameter(name, place, false, text()));
        self
    }

    /// It takes a header.
    pub fn header(mut self, name: &str) -> Self {
        let place = ParameterIn::Header;
        self.parameters.push(parameter(name, place, false, text()));
        self
    }

    /// It takes a JSON body.
    pub fn takes<B: ToSchema>(mut self) -> Self {
        let schema = self.component::<B>(B::name());
        self.body = Some(body(JSON, schema));
        self
    }

    /// It takes bytes.
    pub fn takes_bytes(mut self) -> Self {
        self.body = Some(body(BINARY, bytes()));
        self
    }

    /// It answers JSON.
    pub fn answers<A: ToSchema>(mut self) -> Self {
        let schema = self.component::<A>(A::name());
        self.answer = answer(JSON, schema);
        self
    }

    /// It answers a page of a list.
    pub fn pages<A: ToSchema>(mut self) -> Self {
        self.component::<A>(A::name());
        let name = format!("Page_{}", A::name());
        let schema = self.component::<Page<A>>(Cow::Owned(name));
        self.answer = answer(JSON, schema);
        self
    }

    /// It answers a JSON array.
    pub fn lists<A: ToSchema>(mut self) -> Self {
        let item = self.component::<A>(A::name());
        let array = utoipa::openapi::ArrayBuilder::new().items(item).build();
        self.answer = answer(JSON, RefOr::T(Schema::Array(array)));
        self
    }

    /// It answers server-sent events.
    pub fn streams<A: ToSchema>(mut self) -> Self {
        self.component::<A>(A::name());
        self.answers_text("text/event-stream")
    }

    /// It answers text of another kind than JSON.
    pub fn answers_text(mut self, kind: &str) -> Self {
        self.answer = answer(kind, text());
        self
    }

    /// It answers bytes.
    pub fn answers_bytes(mut self) -> Self {
        self.answer = answer(BINARY, bytes());
        self
    }

    /// It answers with another status than 200.
    pub fn status(mut self, status: &'static str) -> Self {
        self.status = status;
        self
    }

    /// Notes a schema and what it refers to, and answers a reference to it.
    fn component<T: ToSchema>(&mut self, name: Cow<'static, str>) -> RefOr<Schema> {
        T::schemas(&mut self.schemas);
        let reference = Ref::from_schema_name(name.as_ref());
        self.schemas.push((name.into_owned(), T::schema()));
        RefOr::Ref(reference)
    }
}

fn parameter(name: &str, place: ParameterIn, required: bool, schema: RefOr<Schema>) -> Parameter {
    let required = if required {
        Required::True
    } else {
        Required::False
    };
    ParameterBuilder::new()
        .name(name)
        .parameter_in(place)
        .required(required)
        .schema(Some(schema))
        .build()
}

fn body(kind: &str, schema: RefOr<Schema>) -> RequestBody {
    RequestBodyBuilder::new()
        .content(kind, ContentBuilder::new().schema(Some(schema)).build())
        .required(Some(Required::True))
        .build()
}

fn answer(kind: &str, schema: RefOr<Schema>) -> Response {
    ResponseBuilder::new()
        .description("done")
        .content(kind, ContentBuilder::new().schema(Some(schema)).build())
        .build()
}

fn text() -> RefOr<Schema> {
    String::schema()
}

fn bytes() -> RefOr<Schema> {
    ObjectBuilder::new()
        .schema_type(Type::String)
        .format(Some(SchemaFormat::KnownFormat(KnownFormat::Binary)))
        .into()
}

/// The whole document.
pub fn document() -> &'static OpenApi {
    static DOCUMENT: LazyLock<OpenApi> = LazyLock::new(|| describe(&routes::table()));
    &DOCUMENT
}

fn describe(table: &[Route]) -> OpenApi {
    let mut paths = Paths::new();
    let mut components = Components::new();
    let mut schemas: Schemas = Vec::new();
    DetailedErrorBody::schemas(&mut schemas);
    schemas.push((
        DetailedErrorBody::name().into_owned(),
        DetailedErrorBody::schema(),
    ));
    for route in table {
        schemas.extend(route.about.schemas.iter().cloned());
        let operation = operation(route);
        paths.add_path_operation(route.path, vec![method(route.method)], operation);
    }
    components.schemas.extend(schemas);
    OpenApiBuilder::new()
        .info(
            InfoBuilder::new()
                .title("Pomona")
                .version(env!("CARGO_PKG_VERSION"))
                .description(Some(DESCRIPTION))
                .build(),
        )
        .paths(paths)
        .components(Some(components))
        .build()
}

const DESCRIPTION: &str = "Transfer learning at team scale. Ids carry their kind (`exp_…`, `tri_…`, \
`tsk_…`, `wrk_…`), times are RFC 3339 in UTC, durations have their unit in their name. Every error \
has a code; `pomona explain E0102` says more about one.";

fn operation(route: &Route) -> Operation {
    let about = &route.about;
    let (tag, _) = route
        .handler
        .split_once("::")
        .unwrap_or((route.handler, ""));
    let names = route.path.split('/').filter_map(|part| {
        let name = part.strip_prefix('{')?;
        name.strip_suffix('}')
    });
    let in_path = names.map(|name| parameter(name, ParameterIn::Path, true, text()));
    let error = RefOr::Ref(Ref::from_schema_name(DetailedErrorBody::name().as_ref()));
    let mut refused = answer(JSON, error);
    "refused, with a code".clone_into(&mut refused.description);
    let mut builder = OperationBuilder::new()
        .tag(tag)
        .operation_id(Some(route.handler.replace("::", "_")))
        .summary(Some(about.summary))
        .request_body(about.body.clone())
        .response(about.status, about.answer.clone())
        .response("default", refused);
    for parameter in in_path.chain(about.parameters.iter().cloned()) {
        builder = builder.parameter(parameter);
    }
    builder.build()
}

fn method(name: &str) -> HttpMethod {
    match name {
        "put" => HttpMethod::Put,
        "post" => HttpMethod::Post,
        "head" => HttpMethod::Head,
        "patch" => HttpMethod::Patch,
        "delete" => HttpMethod::Delete,
        _ => HttpMethod::Get,
    }
}

#[cfg(test)]
mod tests;
