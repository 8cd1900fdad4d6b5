use base64::{Engine, engine::general_purpose::STANDARD};
use http::Response;
use runtime_api::full;

use crate::{
    bench::Bench,
    fake::{FakeRegistry, Plain, Seen, challenge, digest, endless, redirect, status},
    images::MODULE,
};

/// What `me:secret` looks like on the wire.
fn basic() -> String {
    format!("Basic {}", STANDARD.encode("me:secret"))
}

/// Makes the registry want a bearer token, and answers its realm's path.
fn want_token(fake: &FakeRegistry, realm: &str) {
    let wanted = format!("Bearer realm=\"{realm}\",service=\"fake\"");
    fake.guard(move |seen| {
        let free = seen.path.starts_with("/token") || seen.authorization.as_deref() == Some("Bearer right");
        (!free).then(|| challenge(&wanted))
    });
}

#[tokio::test]
async fn without_credentials_the_user_is_told_to_log_in() {
    let bench = Bench::start().await;
    bench.fake.guard(|_| Some(challenge("Basic realm=\"here\"")));
    let refusal = bench.refusal("hello:v1").await;
    assert!(refusal.starts_with("unauthorized: ") && refusal.contains("docker login"), "{refusal}");
    assert_eq!(bench.fake.seen().len(), 1, "there is nothing to try again with");
}

#[tokio::test]
async fn basic_credentials_are_shown_when_asked_for() {
    let bench = Bench::logged_in().await;
    let right = basic();
    bench.fake.guard(move |seen| {
        (seen.authorization.as_deref() != Some(&right)).then(|| challenge("Basic realm=\"here\""))
    });
    bench.fake.artifact("hello", "v1", MODULE);
    bench.fetch("hello:v1").await.unwrap();
    assert_eq!(bench.fake.seen()[0].authorization, None, "nobody had asked yet");
}

#[tokio::test]
async fn wrong_credentials_are_named_as_such() {
    let bench = Bench::logged_in().await;
    bench.fake.guard(|_| Some(challenge("Basic realm=\"here\"")));
    let refusal = bench.refusal("hello:v1").await;
    assert!(
        refusal.starts_with("unauthorized: ") && refusal.contains("does not accept the credentials"),
        "{refusal}"
    );
    assert!(!refusal.contains("secret"));
    assert_eq!(bench.fake.seen().len(), 2);
}

#[tokio::test]
async fn a_token_is_got_with_the_password_and_used_in_its_place() {
    let bench = Bench::logged_in().await;
    want_token(&bench.fake, &format!("http://{}/token", bench.fake.address));
    bench.fake.serve_at("/token", r#"{"token": "right", "expires_in": 60}"#);
    bench.fake.artifact("me/hello", "v1", MODULE);
    bench.fetch("me/hello:v1").await.unwrap();

    let seen = bench.fake.seen();
    let (tokens, others): (Vec<&Seen>, Vec<&Seen>) =
        seen.iter().partition(|seen| seen.path.starts_with("/token"));
    assert_eq!(tokens.len(), 1);
    assert_eq!(tokens[0].path, "/token?scope=repository%3Ame%2Fhello%3Apull&service=fake");
    assert_eq!(tokens[0].authorization, Some(basic()));
    assert!(
        others.iter().all(|seen| seen.authorization != Some(basic())),
        "the password is for the token server"
    );
}

#[tokio::test]
async fn a_token_is_got_without_credentials_too() {
    let bench = Bench::start().await;
    want_token(&bench.fake, &format!("http://{}/token", bench.fake.address));
    bench.fake.serve_at("/token", r#"{"access_token": "right"}"#);
    bench.fake.artifact("hello", "v1", MODULE);
    bench.fetch("hello:v1").await.unwrap();
}

#[tokio::test]
async fn an_identity_token_is_exchanged() {
    let bench = Bench::logged_in_with(r#"{"identitytoken": "a+b"}"#).await;
    want_token(&bench.fake, &format!("http://{}/token", bench.fake.address));
    bench.fake.serve_at("/token", r#"{"access_token": "right"}"#);
    bench.fake.artifact("hello", "v1", MODULE);
    bench.fetch("hello:v1").await.unwrap();
    let exchange = bench.fake.seen().into_iter().find(|seen| seen.path == "/token").unwrap();
    let body = String::from_utf8(exchange.body.to_vec()).unwrap();
    assert!(body.starts_with("grant_type=refresh_token&client_id=fawn&refresh_token=a%2Bb&"), "{body}");

    bench.fake.guard(|_| Some(challenge("Basic realm=\"here\"")));
    let error = bench.fetch("other:v1").await.unwrap_err();
    assert!(error.to_string().contains("identity token"), "{error}");
}

#[tokio::test]
async fn a_token_that_ended_is_got_anew() {
    let bench = Bench::logged_in().await;
    let blobs_want_another = |seen: &Seen| match seen.authorization.as_deref() {
        _ if seen.path.starts_with("/token") => true,
        Some("Bearer second") => true,
        Some("Bearer first") => seen.path.contains("/manifests/"),
        _ => false,
    };
    let realm = format!("http://{}/token", bench.fake.address);
    bench.fake.guard(move |seen| {
        (!blobs_want_another(seen)).then(|| challenge(&format!("Bearer realm=\"{realm}\"")))
    });
    let count = std::sync::atomic::AtomicU32::new(0);
    bench.fake.answer("/token", move |_| {
        let first = count.fetch_add(1, std::sync::atomic::Ordering::Relaxed) == 0;
        Response::new(full(if first { r#"{"token": "first"}"# } else { r#"{"token": "second"}"# }))
    });
    bench.fake.artifact("hello", "v1", MODULE);
    bench.fetch("hello:v1").await.unwrap();
}

#[tokio::test]
async fn a_realm_elsewhere_never_hears_of_it() {
    let bench = Bench::logged_in().await;
    let thief = FakeRegistry::start().await;
    thief.serve_at("/token", r#"{"token": "right"}"#);
    for realm in [
        format!("http://localhost:{}/token", thief.address.port()),
        format!("http://[::1]:{}/token", thief.address.port()),
        format!("http://127.0.0.1@localhost:{}/token", thief.address.port()),
        "https://token.example.com/".into(),
        "file:///etc/passwd".into(),
        "nonsense".into(),
    ] {
        want_token(&bench.fake, &realm);
        let refusal = bench.refusal("hello:v1").await;
        assert!(refusal.starts_with("untrusted-realm: ") && refusal.contains(&realm), "{refusal}");
    }
    assert!(thief.seen().is_empty());
}

#[tokio::test]
async fn a_realm_elsewhere_may_be_allowed_by_name() {
    let elsewhere = FakeRegistry::start().await;
    elsewhere.serve_at("/token", r#"{"token": "right"}"#);
    let port = elsewhere.address.port();
    for (listed, allowed) in
        [(format!("localhost:{port}"), true), ("localhost:1".into(), false), ("other".into(), false)]
    {
        let bench = Bench::with(FakeRegistry::start().await, |config, fake, folder| {
            let file = folder.join("config.json");
            let auths = format!(r#"{{"auths": {{"{}": {{"auth": "bWU6c2VjcmV0"}}}}}}"#, fake.address);
            std::fs::write(&file, auths).unwrap();
            config.auth_file = Some(file);
            config.plain_http.push(fake.address.to_string().parse().unwrap());
            config.realms.push((fake.address.to_string().parse().unwrap(), listed.parse().unwrap()));
        });
        want_token(&bench.fake, &format!("http://localhost:{port}/token"));
        bench.fake.artifact("hello", "v1", MODULE);
        match allowed {
            true => drop(bench.fetch("hello:v1").await.unwrap()),
            false => {
                let refusal = bench.refusal("hello:v1").await;
                assert!(refusal.starts_with("untrusted-realm: "), "{refusal}");
                assert!(
                    refusal.contains(&format!("--registry-realm {}=HOST", bench.fake.address)),
                    "{refusal}"
                );
            }
        }
    }
    let seen = elsewhere.seen();
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].authorization, Some(basic()));
}

#[tokio::test]
async fn a_realm_elsewhere_may_give_tokens_for_nothing() {
    let bench = Bench::start().await;
    let elsewhere = FakeRegistry::start().await;
    elsewhere.serve_at("/token", r#"{"token": "", "access_token": "right"}"#);
    want_token(&bench.fake, &format!("http://localhost:{}/token", elsewhere.address.port()));
    bench.fake.artifact("hello", "v1", MODULE);
    bench.fetch("hello:v1").await.unwrap();
    assert_eq!(elsewhere.seen()[0].authorization, None);
}

#[tokio::test]
async fn an_answer_with_a_token_in_the_wrong_place_is_not_shown() {
    let bench = Bench::start().await;
    want_token(&bench.fake, &format!("http://{}/token", bench.fake.address));
    for answer in [r#"{"token": {"hunter2": 1}}"#, r#"["hunter2"]"#, r#""hunter2""#, r#"{"token": ""}"#] {
        bench.fake.serve_at("/token", answer);
        let refusal = bench.refusal("hello:v1").await;
        assert!(refusal.starts_with("invalid-token: ") && !refusal.contains("hunter2"), "{refusal}");
    }
}

#[tokio::test]
async fn an_encrypted_registry_gets_no_password_sent_in_clear() {
    crate::bench::install_provider();
    let bench = Bench::with(FakeRegistry::start_tls().await, |config, fake, _| {
        config.skip_tls_verification.push(fake.address.to_string().parse().unwrap());
    });
    let thief = FakeRegistry::start().await;
    want_token(&bench.fake, &format!("http://{}/token", thief.address));
    assert!(bench.refusal("hello:v1").await.starts_with("untrusted-realm: "));
    assert!(thief.seen().is_empty());
}

#[tokio::test]
async fn redirects_carry_no_credentials_to_another_place() {
    let bench = Bench::logged_in().await;
    let storage = FakeRegistry::start().await;
    let right = basic();
    bench.fake.guard(move |seen| (seen.authorization.as_deref() != Some(&right)).then(|| challenge("Basic")));
    bench.fake.artifact("hello", "v1", MODULE);
    storage.serve_at("/blob", MODULE);
    let blob = format!("/v2/hello/blobs/{}", digest(MODULE));
    let elsewhere = format!("http://{}/blob", storage.address);
    bench.fake.answer(blob.clone(), move |_| redirect(&elsewhere));
    bench.fetch("hello:v1").await.unwrap();
    assert_eq!(storage.seen().len(), 1);
    assert_eq!(storage.seen()[0].authorization, None);

    // Nor is it believed there what it asks for.
    let bench = Bench::logged_in().await;
    let elsewhere = format!("http://{}/blob", storage.address);
    bench.fake.answer("/v2/hello/manifests/v1", move |_| redirect(&elsewhere));
    storage.guard(|_| Some(challenge("Basic realm=\"give it to me\"")));
    assert!(bench.refusal("hello:v1").await.starts_with("unauthorized: "));
    assert!(storage.seen().iter().all(|seen| seen.authorization.is_none()));
}

#[tokio::test]
async fn token_servers_that_misbehave_are_named() {
    let bench = Bench::start().await;
    want_token(&bench.fake, &format!("http://{}/token", bench.fake.address));
    let answers: [(Plain, &str); 6] = [
        (|| Response::new(endless(false)), "too-large: "),
        (|| Response::new(full("{}")), "invalid-token: "),
        (|| Response::new(full(r#"{"token": "a\nb"}"#)), "invalid-token: "),
        (|| status(401), "unauthorized: "),
        (|| status(503), "registry-unavailable: "),
        (|| redirect("/token2"), "unauthorized: "),
    ];
    for (answer, expected) in answers {
        bench.fake.answer("/token", move |_| answer());
        let refusal = bench.refusal("hello:v1").await;
        assert!(refusal.starts_with(expected), "{refusal} is not {expected}");
    }
    assert!(!bench.fake.paths().contains(&"/token2".to_owned()));
}
