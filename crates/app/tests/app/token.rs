//! A web-app that asks for a token.

use std::sync::Arc;

use ferry_app::{Access, Config, PassThrough, Role, Token, Webapp};

use crate::pair::{config, url};

#[tokio::test]
async fn an_exposed_web_app_asks_for_its_token_and_leaves_probes_open() {
    let token = Some(Token::new("0123456789abcdef").unwrap());
    let access = Access { token, ..Access::default() };
    let webapp = Webapp::start(Config { access, ..config(Role::Terminator) }, Arc::new(PassThrough)).unwrap();
    let client = reqwest::Client::new();
    for path in ["/output", "/dead", "/stream", "/trigger"] {
        let refused = client.get(url(&webapp, path)).send().await.unwrap();
        assert!([401, 405].contains(&refused.status().as_u16()), "{path}: {}", refused.status());
    }
    let trigger = |bearer: &str| {
        client.post(url(&webapp, "/trigger")).bearer_auth(bearer).json(&serde_json::json!({"n": 1})).send()
    };
    let refused = trigger("0123456789abcdeX").await.unwrap();
    assert_eq!((refused.status().as_u16(), refused.headers()["www-authenticate"].to_str().unwrap()), (401, "Bearer"));
    assert_eq!(trigger("0123456789abcdef").await.unwrap().status().as_u16(), 202);
    for path in ["/livez", "/metrics"] {
        assert_eq!(client.get(url(&webapp, path)).send().await.unwrap().status().as_u16(), 200, "{path}");
    }
}
