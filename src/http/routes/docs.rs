//! `/openapi.json` and the Swagger UI at `/docs`, which is compiled in and fetches nothing from the internet.

use std::{
    future::{Ready, ready},
    sync::{Arc, OnceLock},
};

use actix_web::{
    HttpRequest, HttpResponse,
    http::header::{self, ContentEncoding, HeaderValue},
    web::{Bytes, Data},
};
use utoipa_swagger_ui::Config;

use crate::{
    base::error::Kind,
    http::{
        HttpState,
        endpoint::Endpoint,
        openapi,
        problem::{Problem, ProblemType},
        routes::Routes,
    },
    users::Need,
};

/// The document's text, made when somebody first asks: making it takes several megabytes, which a process that is never asked
/// does not need.
#[derive(Default)]
pub struct Document(OnceLock<Bytes>);

impl Document {
    fn bytes(&self) -> Bytes {
        // A JSON value always serialises.
        self.0.get_or_init(|| serde_json::to_vec(&openapi::document()).unwrap_or_default().into()).clone()
    }
}

pub(crate) fn register(routes: &mut Routes<'_>) {
    // `none` keeps the page from sending the document to a validator on the internet.
    let ui = Config::from("/openapi.json").validator_url("none").try_it_out_enabled(true);
    routes.app_data(Data::new(ui));
    Endpoint::at("/openapi.json").get(Need::Open, read_document).register(routes);
    Endpoint::at("/docs").get(Need::Open, to_docs).register(routes);
    Endpoint::at("/docs/{file:.*}").get(Need::Open, read_docs).register(routes);
}

/// This document
#[utoipa::path(get, path = "/openapi.json", tag = "service", operation_id = "read_openapi", responses(
    (status = 200, description = "The OpenAPI document", body = serde_json::Value,
     example = json!({"openapi": "3.1.0", "info": {"title": "app", "version": "0.1.0"}, "paths": {}})),
))]
pub(crate) fn read_document(state: Data<HttpState>) -> Ready<HttpResponse> {
    let content_type = (header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    ready(HttpResponse::Ok().insert_header(content_type).body(state.document.bytes()))
}

fn to_docs() -> Ready<HttpResponse> {
    ready(HttpResponse::PermanentRedirect().insert_header((header::LOCATION, "/docs/")).finish())
}

fn read_docs(req: HttpRequest, ui: Data<Config<'static>>) -> Ready<Result<HttpResponse, Problem>> {
    let file = req.match_info().get("file").unwrap_or_default();
    let found =
        utoipa_swagger_ui::serve(file, Arc::clone(&ui)).map_err(|e| Problem::hidden(Kind::Internal, e.to_string()));
    let answer = found.and_then(|file| {
        let file = file.ok_or_else(|| Problem::new(ProblemType::NotFound, "there is nothing at this path"))?;
        let mut response = HttpResponse::Ok();
        response.insert_header((header::CONTENT_TYPE, file.content_type));
        if file.gzpipped {
            response.insert_header(ContentEncoding::Gzip);
        }
        Ok(response.body(file.bytes.into_owned()))
    });
    ready(answer)
}
