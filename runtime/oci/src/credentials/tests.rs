use std::{fs, os::unix::fs::PermissionsExt, path::PathBuf};

use tempfile::TempDir;

use super::*;

struct Home(TempDir);

impl Home {
    fn with(config: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("config.json"), config).unwrap();
        Self(folder)
    }

    fn path(&self) -> PathBuf {
        self.0.path().join("config.json")
    }

    async fn find(&self, host: &str) -> Result<Option<Credentials>> {
        self.find_for(host, "me/hello").await
    }

    async fn find_for(&self, host: &str, repository: &str) -> Result<Option<Credentials>> {
        let config = RegistryConfig { auth_file: Some(self.path()), ..RegistryConfig::default() };
        find(&config, host, repository).await
    }

    fn helper(&self, script: &str) -> PathBuf {
        let program = self.0.path().join("docker-credential-test");
        fs::write(&program, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&program, PermissionsExt::from_mode(0o755)).unwrap();
        program
    }
}

fn shown(credentials: Option<Credentials>) -> String {
    match credentials {
        None => "none".into(),
        Some(Credentials::Password { username, password }) => format!("{username}/{password}"),
        Some(Credentials::IdentityToken(token)) => format!("token {token}"),
    }
}

#[tokio::test]
async fn each_registry_has_its_own_however_it_was_filed() {
    let home = Home::with(
        r#"{"auths": {
            "ghcr.io": {"auth": "bWU6c2VjcmV0OjE="},
            "https://index.docker.io/v1/": {"auth": "aHViOnB3"},
            "https://old.example.com/v2/": {"username": "old", "password": "pw"},
            "localhost:5000": {"identitytoken": "id"},
            "empty.example.com": {},
            "padded.example.com": {"auth": "bWU6cHcAAA=="}
        }, "HttpHeaders": {}}"#,
    );
    for (host, expected) in [
        ("ghcr.io", "me/secret:1"),
        ("docker.io", "hub/pw"),
        ("old.example.com", "old/pw"),
        ("localhost:5000", "token id"),
        ("localhost:5001", "none"),
        ("localhost", "none"),
        ("empty.example.com", "none"),
        ("padded.example.com", "me/pw"),
        ("evil-ghcr.io", "none"),
    ] {
        assert_eq!(shown(home.find(host).await.unwrap()), expected, "{host}");
    }
}

#[tokio::test]
async fn a_part_of_a_registry_may_have_its_own() {
    let home = Home::with(
        r#"{"auths": {
            "quay.io": {"username": "all", "password": "1"},
            "quay.io/team": {"username": "team", "password": "2"},
            "quay.io/team/app": {"username": "app", "password": "3"}
        }}"#,
    );
    for (repository, expected) in [
        ("team/app", "app/3"),
        ("team/apple", "team/2"),
        ("teams/app", "all/1"),
        ("a", "all/1"),
        ("team/app/x", "app/3"),
    ] {
        assert_eq!(shown(home.find_for("quay.io", repository).await.unwrap()), expected, "{repository}");
    }
}

#[tokio::test]
async fn an_entry_of_the_very_name_comes_first_and_an_empty_one_is_none() {
    let home = Home::with(
        r#"{"auths": {
            "http://a.io": {"username": "old", "password": "1"},
            "https://a.io/v2/": {"username": "older", "password": "2"},
            "a.io": {"username": "exact", "password": "3"},
            "https://b.io/v1/": {"username": "old", "password": "1"},
            "b.io": {},
            "b.io/me": {},
            "C.io:443": {"username": "c", "password": "4"}
        }}"#,
    );
    for (host, expected) in [("a.io", "exact/3"), ("b.io", "old/1"), ("c.io", "c/4")] {
        assert_eq!(shown(home.find(host).await.unwrap()), expected, "{host}");
    }
}

#[tokio::test]
async fn a_part_comes_before_a_helper_that_has_the_whole() {
    let home = Home::with(
        r#"{"credsStore": "fawn-test-missing", "auths": {
            "quay.io/team": {"username": "team", "password": "1"},
            "quay.io/other": {}
        }}"#,
    );
    assert_eq!(shown(home.find_for("quay.io", "team/app").await.unwrap()), "team/1");
    let error = home.find_for("quay.io", "other/app").await.err().unwrap();
    assert_eq!(error.code(), "credential-helper");
}

#[tokio::test]
async fn a_damaged_file_is_an_error_that_shows_no_secret() {
    for config in [
        "{",
        r#"{"auths": {"a.io": {"auth": "not base64 topsecret"}}}"#,
        r#"{"auths": {"a.io": {"auth": "dG9wc2VjcmV0"}}}"#,
        r#"{"auths": "topsecret"}"#,
    ] {
        let home = Home::with(config);
        let error = home.find("a.io").await.err().unwrap();
        assert_eq!(error.code(), "invalid-credentials", "{config}");
        assert!(
            error.to_string().contains("config.json") && !error.to_string().contains("topsecret"),
            "{error}"
        );
    }
}

#[tokio::test]
async fn only_the_default_file_may_be_missing() {
    let missing = Some(PathBuf::from("/nowhere/config.json"));
    let default = RegistryConfig { default_auth_file: missing.clone(), ..RegistryConfig::default() };
    assert!(find(&default, "a.io", "b").await.unwrap().is_none());
    let named = RegistryConfig { auth_file: missing, ..RegistryConfig::default() };
    assert!(find(&named, "a.io", "b").await.is_err());
}

/// One after the other: a script that another thread's child still holds open for writing cannot be run.
#[tokio::test]
async fn helpers() {
    a_helper_is_asked_with_the_host_on_its_input().await;
    a_helper_that_misbehaves_is_named().await;
}

async fn a_helper_is_asked_with_the_host_on_its_input() {
    let home = Home::with("{}");
    let program = home
        .helper(r#"read host; echo "{\"ServerURL\":\"$host\",\"Username\":\"$1\",\"Secret\":\"$host\"}""#);
    let answer = ask_helper(program.as_ref(), "ghcr.io", HELPER_TIMEOUT).await.unwrap();
    assert_eq!(shown(answer), "get/ghcr.io");

    home.helper(r#"echo '{"Username":"<token>","Secret":"id"}'"#);
    assert_eq!(shown(ask_helper(program.as_ref(), "a", HELPER_TIMEOUT).await.unwrap()), "token id");

    home.helper("echo 'credentials not found in native keychain'; exit 1");
    assert_eq!(shown(ask_helper(program.as_ref(), "a", HELPER_TIMEOUT).await.unwrap()), "none");
}

async fn a_helper_that_misbehaves_is_named() {
    let home = Home::with("{}");
    for script in ["exit 1", "echo nonsense", "exec cat /dev/zero", "exec sleep 600"] {
        let program = home.helper(script);
        let error = ask_helper(program.as_ref(), "a.io", Duration::from_millis(300)).await.err().unwrap();
        assert_eq!(error.code(), "credential-helper", "{script}");
        assert!(error.to_string().contains("docker-credential-test"), "{error}");
    }
    let missing = Home::with(r#"{"credHelpers": {"a.io": "fawn-test-missing"}}"#);
    assert!(
        missing.find("a.io").await.err().unwrap().to_string().contains("docker-credential-fawn-test-missing")
    );
    let path = Home::with(r#"{"credsStore": "../../bin/sh"}"#);
    assert_eq!(path.find("a.io").await.err().unwrap().code(), "invalid-credentials");
}
