//! The answers of the HTTP server.

use http_body_util::Full;
use hyper::body::Bytes;
use hyper::header::{AUTHORIZATION, CACHE_CONTROL, CONTENT_TYPE, HeaderValue, WWW_AUTHENTICATE};
use hyper::{Method, Request, Response, StatusCode};

use crate::config::Secret;
use crate::telemetry::metrics::metrics;
use crate::telemetry::vitals::Vitals;

const TEXT: HeaderValue = HeaderValue::from_static("text/plain; charset=utf-8");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const METRICS: HeaderValue = HeaderValue::from_static("text/plain; version=0.0.4; charset=utf-8");

/// Answers one request, without I/O: it does not wait for the relay.
pub(super) fn answer<B>(
    request: &Request<B>,
    vitals: &Vitals,
    token: Option<&Secret>,
) -> Response<Full<Bytes>> {
    if ![Method::GET, Method::HEAD].contains(request.method()) {
        return response(StatusCode::METHOD_NOT_ALLOWED, TEXT, "only GET and HEAD\n".to_owned());
    }
    let is_allowed = token.is_none_or(|token| has_token(request, token));
    match request.uri().path() {
        "/health/live" => live(vitals),
        "/health/ready" if is_allowed => ready(vitals, Detail::Full),
        "/health/ready" => ready(vitals, Detail::StatusOnly),
        "/metrics" if is_allowed => response(StatusCode::OK, METRICS, metrics().text(vitals)),
        "/metrics" => unauthorized(),
        _ => {
            let known = "/health/live, /health/ready, /metrics\n".to_owned();
            response(StatusCode::NOT_FOUND, TEXT, known)
        }
    }
}

fn live(vitals: &Vitals) -> Response<Full<Bytes>> {
    let (code, status) = if vitals.is_alive() {
        (StatusCode::OK, "live")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "hung")
    };
    let seconds = vitals.silence().as_secs_f64();
    let body = serde_json::json!({ "status": status, "event_loop_silence_seconds": seconds });
    response(code, JSON, format!("{body}\n"))
}

/// How much of the readiness an answer has: names and errors need the token.
#[derive(Clone, Copy)]
enum Detail {
    Full,
    StatusOnly,
}

fn ready(vitals: &Vitals, detail: Detail) -> Response<Full<Bytes>> {
    let readiness = vitals.readiness();
    let code = if readiness.is_ready() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = match detail {
        Detail::Full => serde_json::to_string(&readiness).unwrap_or_default(),
        Detail::StatusOnly => serde_json::json!({ "status": readiness.status }).to_string(),
    };
    response(code, JSON, format!("{body}\n"))
}

fn unauthorized() -> Response<Full<Bytes>> {
    let text = "/metrics needs the token: Authorization: Bearer ...\n".to_owned();
    let mut response = response(StatusCode::UNAUTHORIZED, TEXT, text);
    response.headers_mut().insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
    response
}

/// Compares all bytes in any case, so that the time of an answer tells nothing about them.
fn has_token<B>(request: &Request<B>, token: &Secret) -> bool {
    let given = request.headers().get(AUTHORIZATION).map(HeaderValue::as_bytes).unwrap_or_default();
    let wanted = format!("Bearer {}", token.expose());
    let pairs = given.iter().zip(wanted.as_bytes());
    given.len() == wanted.len() && pairs.fold(0, |found, (a, b)| found | (a ^ b)) == 0
}

fn response(code: StatusCode, kind: HeaderValue, body: String) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(Bytes::from(body)));
    *response.status_mut() = code;
    response.headers_mut().insert(CONTENT_TYPE, kind);
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

#[cfg(test)]
mod tests {
    use http_body_util::BodyExt;

    use super::*;
    use crate::config::Config;

    fn get(path: &str, authorization: Option<&str>) -> Request<()> {
        let mut request = Request::new(());
        *request.uri_mut() = path.parse().unwrap();
        if let Some(value) = authorization {
            request.headers_mut().insert(AUTHORIZATION, value.parse().unwrap());
        }
        request
    }

    async fn body(response: Response<Full<Bytes>>) -> String {
        let bytes = response.into_body().collect().await.unwrap().to_bytes();
        String::from_utf8(bytes.to_vec()).unwrap()
    }

    fn vitals() -> Vitals {
        let vitals = Vitals::new(&Config::example());
        vitals.beat();
        vitals
    }

    #[tokio::test]
    async fn the_token_is_needed_for_metrics_and_for_reasons_and_not_for_a_status() {
        let (vitals, token) = (vitals(), Secret::new("s3cret"));
        for wrong in [None, Some("Bearer s3cre"), Some("Bearer s3creT"), Some("Basic s3cret")] {
            let refused = answer(&get("/metrics", wrong), &vitals, Some(&token));
            assert_eq!(refused.status(), StatusCode::UNAUTHORIZED);
            let ready = answer(&get("/health/ready", wrong), &vitals, Some(&token));
            assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
            assert_eq!(body(ready).await, "{\"status\":\"starting\"}\n");
            assert_eq!(
                answer(&get("/health/live", wrong), &vitals, Some(&token)).status(),
                StatusCode::OK
            );
        }
        let right = Some("Bearer s3cret");
        let metrics = answer(&get("/metrics", right), &vitals, Some(&token));
        assert_eq!(metrics.status(), StatusCode::OK);
        assert!(body(metrics).await.contains("annals_relay_ready 0\n"));
        let ready = answer(&get("/health/ready", right), &vitals, Some(&token));
        assert!(body(ready).await.contains("\"deployment\":\"annals\""));
    }

    #[tokio::test]
    async fn other_paths_and_methods_are_refused() {
        let unknown = answer(&get("/", None), &vitals(), None);
        assert_eq!(unknown.status(), StatusCode::NOT_FOUND);
        let mut post = get("/metrics", None);
        *post.method_mut() = Method::POST;
        let refused = answer(&post, &vitals(), None);
        assert_eq!(refused.status(), StatusCode::METHOD_NOT_ALLOWED);
    }
}
