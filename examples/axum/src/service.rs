//! Routes: each request is a decision or a read.
//!
//! - `Idempotency-Key: <uuid>` is the command's id: a request that is sent again gets the first
//!   answer.
//! - A change answers with the position of its event; `GET /accounts/{id}?after=<position>` waits
//!   until the read model has it.
//! - `traceparent` goes into the events, and from there to the consumers.

use std::time::Duration;

use annals_store::{
    AppendError, CommandId, Context, Decide, DecideError, EventStore, Position, ProjectionError,
    Refusal, Store, StreamName, TraceContext,
};
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::json;
use sqlx::Row;
use uuid::Uuid;

use crate::account::{Account, AccountEvent, Declined};
use crate::balances;

/// How long a read waits for the read model.
const BEHIND_MAX: Duration = Duration::from_secs(2);

tokio::task_local! {
    /// The trace of the request, for the events that it makes.
    static TRACE: Option<TraceContext>;
}

/// The trace of the present request, for [`annals_store::StoreOptions::trace_context`].
pub(crate) fn current_trace() -> Option<TraceContext> {
    TRACE.try_with(Clone::clone).ok().flatten()
}

/// All routes.
pub(crate) fn routes(store: Store) -> Router {
    Router::new()
        .route("/accounts/{id}", post(open).get(balance))
        .route("/accounts/{id}/deposits", post(deposit))
        .layer(middleware::from_fn(in_context))
        .route("/health/live", get(async || StatusCode::OK))
        .route("/health/ready", get(ready))
        .with_state(store)
}

/// An answer that is no success.
struct Failure(StatusCode, String);

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        (self.0, Json(json!({ "error": self.1 }))).into_response()
    }
}

/// Runs a request with its trace and its correlation id.
async fn in_context(request: Request, next: Next) -> Response {
    let (trace, context) = origin(request.headers());
    TRACE.scope(trace, context.scope(next.run(request))).await
}

/// The origin of a request, for the events that it makes.
fn origin(headers: &HeaderMap) -> (Option<TraceContext>, Context) {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::to_owned);
    let trace = text("traceparent")
        .map(|traceparent| TraceContext { traceparent, tracestate: text("tracestate") });
    let correlation = text("x-request-id").and_then(|id| id.parse().ok());
    (trace, Context::new().correlation_id(correlation.unwrap_or_else(Uuid::now_v7)))
}

/// Ready: the database answers, and has the tables of this version.
async fn ready(State(store): State<Store>) -> Result<StatusCode, Failure> {
    let unavailable =
        |error: annals_store::Error| Failure(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
    store.check().await.map_err(unavailable)?;
    Ok(StatusCode::OK)
}

#[derive(Deserialize)]
struct Opening {
    owner: String,
}

#[derive(Deserialize)]
struct Deposit {
    cents: i64,
    #[serde(default)]
    note: String,
}

async fn open(
    State(store): State<Store>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(opening): Json<Opening>,
) -> Result<Response, Failure> {
    change(&store, &id, &headers, |account| account.open(&opening.owner)).await
}

async fn deposit(
    State(store): State<Store>,
    Path(id): Path<String>,
    headers: HeaderMap,
    Json(deposit): Json<Deposit>,
) -> Result<Response, Failure> {
    let Deposit { cents, note } = deposit;
    change(&store, &id, &headers, |account| account.deposit(cents, &note)).await
}

/// Decides on an account; the answer to a repeated request is the first one.
async fn change(
    store: &Store,
    id: &str,
    headers: &HeaderMap,
    decision: impl FnMut(&Account) -> Result<Vec<AccountEvent>, Declined> + Send,
) -> Result<Response, Failure> {
    let on = Decide::on(&stream(id)?).command(command(headers)?);
    let decided = store.decide(on, decision).await.map_err(|error| failure(&error))?;
    let event = decided.appended.events.last();
    let (version, position) = event
        .map_or((None, None), |(version, position)| (Some(version.get()), Some(position.get())));
    let answer = Json(json!({ "version": version, "position": position }));
    let repeated = decided.appended.repeated.to_string();
    Ok((StatusCode::CREATED, [("idempotent-replayed", repeated)], answer).into_response())
}

fn stream(id: &str) -> Result<StreamName, Failure> {
    StreamName::new(format!("account-{id}"))
        .map_err(|error| Failure(StatusCode::BAD_REQUEST, error.to_string()))
}

fn command(headers: &HeaderMap) -> Result<CommandId, Failure> {
    let key = headers.get("idempotency-key").and_then(|key| key.to_str().ok());
    let key = key.and_then(|key| key.parse::<Uuid>().ok()).map(CommandId::from);
    let missing = "send a UUID in the header Idempotency-Key, and the same one when you repeat";
    key.ok_or_else(|| Failure(StatusCode::BAD_REQUEST, missing.to_owned()))
}

fn failure(error: &DecideError<Declined>) -> Failure {
    let status = match error {
        DecideError::Refused(_) => StatusCode::UNPROCESSABLE_ENTITY,
        DecideError::Append(AppendError::Refused(reasons)) if reuses_key(reasons) => {
            StatusCode::CONFLICT
        }
        error if error.is_retryable() => StatusCode::SERVICE_UNAVAILABLE,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    };
    Failure(status, error.to_string())
}

/// The key was used for another account.
fn reuses_key(reasons: &[Refusal]) -> bool {
    reasons.iter().any(|reason| matches!(reason, Refusal::IdTaken { .. }))
}

#[derive(Deserialize)]
struct After {
    /// The position of an event that the answer must include.
    after: Option<i64>,
}

async fn balance(
    State(store): State<Store>,
    Path(id): Path<String>,
    Query(After { after }): Query<After>,
) -> Result<Response, Failure> {
    let positions = after.and_then(Position::new);
    store.wait_for(balances::NAME, positions, BEHIND_MAX).await.map_err(|error| {
        let status = match error {
            ProjectionError::Behind { .. } => StatusCode::GATEWAY_TIMEOUT,
            _ => StatusCode::SERVICE_UNAVAILABLE,
        };
        Failure(status, error.to_string())
    })?;
    let failed = |error: sqlx::Error| Failure(StatusCode::SERVICE_UNAVAILABLE, error.to_string());
    let find = sqlx::query(include_str!("../sql/balance_find.sql")).bind(format!("account-{id}"));
    let found = find.fetch_optional(store.pool()).await.map_err(failed)?;
    let missing = || Failure(StatusCode::NOT_FOUND, format!("there is no account {id}"));
    let found = found.ok_or_else(missing)?;
    let owner: String = found.try_get("owner").map_err(failed)?;
    let cents: i64 = found.try_get("cents").map_err(failed)?;
    Ok(Json(json!({ "owner": owner, "cents": cents })).into_response())
}
