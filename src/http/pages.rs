//! The pages: what this server is, whether it works from where the reader sits, and a call.
//!
//! Plain files in the binary, without a build step and without a foreign host. They learn all they
//! show through the same endpoints as everybody else.

use axum::Router;
use axum::extract::Path;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, REFERRER_POLICY,
    X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;

/// Nothing from elsewhere, nothing inline, and in nobody's frame. `connect-src 'self'` covers the
/// socket to `/ws`.
const POLICY: HeaderValue = HeaderValue::from_static(
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; \
     media-src 'self' blob:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
);
/// Camera and microphone for the call, for this origin alone.
const PERMISSIONS: HeaderValue =
    HeaderValue::from_static("camera=(self), microphone=(self), geolocation=()");
const PERMISSIONS_POLICY: HeaderName = HeaderName::from_static("permissions-policy");
/// A new server has new pages, and they are small.
const REVALIDATE: HeaderValue = HeaderValue::from_static("no-cache");

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";

/// What the pages are made of, by name.
const ASSETS: [(&str, &str, &str); 11] = [
    ("style.css", STYLE, include_str!("pages/style.css")),
    ("dom.js", SCRIPT, include_str!("pages/dom.js")),
    ("ice.js", SCRIPT, include_str!("pages/ice.js")),
    ("index.js", SCRIPT, include_str!("pages/index.js")),
    ("test.js", SCRIPT, include_str!("pages/test.js")),
    ("gather.js", SCRIPT, include_str!("pages/gather.js")),
    ("relay.js", SCRIPT, include_str!("pages/relay.js")),
    ("call.js", SCRIPT, include_str!("pages/call.js")),
    ("peer.js", SCRIPT, include_str!("pages/peer.js")),
    ("signaling.js", SCRIPT, include_str!("pages/signaling.js")),
    ("statistics.js", SCRIPT, include_str!("pages/statistics.js")),
];

/// `/`, `/test`, `/call`, and what they are made of.
pub(super) fn routes<S: Clone + Send + Sync + 'static>() -> Router<S> {
    Router::new()
        .route("/", get(async || file(HTML, include_str!("pages/index.html"))))
        .route("/test", get(async || file(HTML, include_str!("pages/test.html"))))
        .route("/call", get(async || file(HTML, include_str!("pages/call.html"))))
        .route("/assets/{name}", get(asset))
}

async fn asset(Path(wanted): Path<String>) -> Response {
    let found = ASSETS.iter().find(|(name, ..)| *name == wanted);
    match found {
        Some((_, kind, text)) => file(kind, text).into_response(),
        None => (StatusCode::NOT_FOUND, "not found\n").into_response(),
    }
}

fn file(kind: &'static str, text: &'static str) -> impl IntoResponse {
    let headers = [
        (CONTENT_TYPE, HeaderValue::from_static(kind)),
        (CACHE_CONTROL, REVALIDATE),
        (CONTENT_SECURITY_POLICY, POLICY),
        (PERMISSIONS_POLICY, PERMISSIONS),
        (REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
        (X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    ];
    (headers, text)
}

#[cfg(test)]
mod tests {
    use axum::body::Body;
    use tower::ServiceExt;

    use super::*;

    /// Nothing from elsewhere, nothing inline, no frames, and camera and microphone for no one else.
    #[tokio::test]
    async fn each_page_and_what_it_is_made_of_says_what_it_may() {
        let router: Router = routes();
        let assets = ASSETS.iter().map(|(name, ..)| format!("/assets/{name}"));
        let paths = ["/", "/test", "/call"].map(str::to_owned).into_iter().chain(assets);
        for path in paths {
            let request = axum::extract::Request::get(&path).body(Body::empty()).unwrap();
            let response = router.clone().oneshot(request).await.unwrap();
            assert_eq!(response.status(), StatusCode::OK, "{path}");
            for (name, expected) in [
                (
                    "content-security-policy",
                    "default-src 'none'; script-src 'self'; style-src 'self'; \
                     connect-src 'self'; img-src data:; media-src 'self' blob:; \
                     base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
                ),
                ("permissions-policy", "camera=(self), microphone=(self), geolocation=()"),
                ("referrer-policy", "no-referrer"),
                ("x-content-type-options", "nosniff"),
                ("cache-control", "no-cache"),
            ] {
                assert_eq!(response.headers()[name], expected, "{path}");
            }
            let kind = response.headers()[CONTENT_TYPE].to_str().unwrap();
            let expected = match path.rsplit_once('.') {
                Some((_, "js")) => SCRIPT,
                Some((_, "css")) => STYLE,
                _ => HTML,
            };
            assert_eq!(kind, expected, "{path}");
        }
    }

    /// Each page and script names only what is served, and nothing from elsewhere.
    #[test]
    fn pages_are_complete_and_need_nobody_else() {
        let pages = ["index", "test", "call"]
            .map(|name| std::fs::read_to_string(format!("src/http/pages/{name}.html")).unwrap());
        let texts = pages.iter().map(String::as_str).chain(ASSETS.iter().map(|(.., text)| *text));
        let mut named = Vec::new();
        for text in texts {
            assert!(!text.contains("http://") && !text.contains("https://"), "{text}");
            for start in ["\"/assets/", "from \"./"] {
                named.extend(text.split(start).skip(1).filter_map(|rest| rest.split('"').next()));
            }
        }
        for name in &named {
            assert!(ASSETS.iter().any(|(asset, ..)| asset == name), "{name}");
        }
        for (asset, ..) in ASSETS {
            assert!(named.contains(&asset), "{asset} is used by nobody");
        }
    }
}
