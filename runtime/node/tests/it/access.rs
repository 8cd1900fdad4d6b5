//! Functions that ask their callers for credentials.

use runtime_api::{SecretName, SecretValue};

use super::*;

const ADMIN: &str = "Basic YWRtaW46c2VjcmV0";

fn credentials() -> Credentials {
    Credentials { user: "admin".into(), password: "secret".into() }
}

impl Running {
    async fn deploy_asking(&self, name: &str, annotation: (&str, &str)) -> Result<Deployed> {
        let annotations = [(annotation.0.to_owned(), annotation.1.to_owned())].into();
        self.node.deploy(FunctionSpec { annotations, ..self.stored(name, guests::ENV).await }).await
    }

    /// What the function answers, or the error's code.
    async fn present(&self, function: &str, authorization: &str) -> Result<String, String> {
        let mut invocation = invocation(function);
        if !authorization.is_empty() {
            invocation.request.headers_mut().insert("authorization", authorization.parse().unwrap());
        }
        let answer = self.node.invoke(invocation).await;
        text(answer.map_err(|error| error.code().to_owned())?).await.map_err(|error| error.code().to_owned())
    }
}

#[tokio::test]
async fn a_function_asks_for_the_gateway_s_credentials_and_never_sees_them() {
    let machine = Machine { basic_auth: Some(credentials()), ..Machine::new() };
    let running = machine.start();
    running.deploy_asking("guarded", ("faas.net/basic-auth", "true")).await.unwrap();
    running.deploy_asking("open", ("faas.net/basic-auth", "false")).await.unwrap();
    for wrong in ["", "Bearer ", "Bearer secret", "Basic YWRtaW46d3Jvbmc="] {
        assert_eq!(running.present("guarded", wrong).await.unwrap_err(), "unauthenticated", "{wrong}");
    }
    let seen = running.present("guarded", ADMIN).await.unwrap();
    assert!(seen.contains("Http_Method") && !seen.contains("Authorization"), "{seen}");
    assert!(running.present("open", ADMIN).await.unwrap().contains(ADMIN));
    running.stop().await;

    // Where nobody is asked for credentials any more, that function is closed.
    let machine = Machine { basic_auth: None, ..machine };
    let running = machine.start();
    assert_eq!(running.present("guarded", ADMIN).await.unwrap_err(), "unavailable");
    let refused = running.deploy_asking("other", ("faas.net/basic-auth", "true")).await.unwrap_err();
    assert_eq!(refused.code(), "invalid-access");
    running.stop().await;
}

#[tokio::test]
async fn a_function_asks_for_a_token_from_a_secret() {
    let machine = Machine::new();
    let running = machine.start();
    let refused = running.deploy_asking("f", ("dev.fawn.bearer-secret", "token")).await.unwrap_err();
    assert_eq!(refused.code(), "no-such-secret");
    let secret = SecretName::new("token", "").unwrap();
    let value = |text: &str| SecretValue::new(text).unwrap();
    running.node.create_secret(&secret, value("one\n")).await.unwrap();
    running.deploy_asking("f", ("dev.fawn.bearer-secret", "token")).await.unwrap();
    for wrong in ["", "Bearer", "Bearer two", "Bearer one\u{0020}x", ADMIN] {
        assert_eq!(running.present("f", wrong).await.unwrap_err(), "unauthenticated", "{wrong}");
    }
    assert!(!running.present("f", "Bearer one").await.unwrap().contains("Authorization"));

    running.node.update_secret(&secret, value("two")).await.unwrap();
    assert_eq!(running.present("f", "Bearer one").await.unwrap_err(), "unauthenticated");
    running.present("f", "Bearer two").await.unwrap();
    running.node.update_secret(&secret, value(" \n")).await.unwrap();
    assert_eq!(running.present("f", "Bearer ").await.unwrap_err(), "unauthenticated");
    running.node.remove_secret(&secret).await.unwrap();
    assert_eq!(running.present("f", "Bearer two").await.unwrap_err(), "unauthenticated");
    running.stop().await;
}
