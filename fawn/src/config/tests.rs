use clap::Parser;

use super::*;
use crate::serve_settings::Auth;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    settings: Settings,
}

fn load(flags: &[&str], file: Option<&str>, environment: &[(&str, &str)]) -> Result<Config, String> {
    load_for(Role::GATEWAY, flags, file, environment)
}

fn load_for(
    role: Role,
    flags: &[&str],
    file: Option<&str>,
    environment: &[(&str, &str)],
) -> Result<Config, String> {
    let flags = Flags::try_parse_from(["test"].iter().chain(flags)).map_err(|error| error.to_string())?;
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fawn.toml");
    let path = file.map(|text| {
        fs::write(&path, text).unwrap();
        path.as_path()
    });
    let lookup =
        |name: &str| environment.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
    Config::load(role, flags.settings, path, &lookup).map_err(|mistakes| mistakes.to_string())
}

#[test]
fn nothing_said_is_a_gateway_for_this_machine() {
    let config = load(&[], None, &[]).unwrap();
    assert_eq!(config.serve.listen.to_string(), "127.0.0.1:8080");
    assert_eq!(config.serve.auth, Auth::DataDirectory);
    assert_eq!(config.max_exec_timeout, Duration::from_secs(900));
    assert!(config.memory_budget_bytes.is_none() && config.code_memory_bytes.is_none());
    assert_eq!(config.code_idle, Duration::from_secs(600));
    assert_eq!(config.log_limits, LogLimits::default());
}

#[test]
fn a_flag_beats_the_file_and_the_file_beats_the_default() {
    let file =
        "listen = \"0.0.0.0:1\"\nlog = \"warn\"\ninsecure-registry = [\"a:1\", \"b:2\"]\nno-auth = false";
    let config = load(&["--listen", "127.0.0.1:2", "--grace-period=5s"], Some(file), &[]).unwrap();
    assert_eq!(config.serve.listen.port(), 2);
    assert_eq!(config.serve.log, "warn");
    assert_eq!(config.registries.plain_http, ["a:1", "b:2"].map(|host| host.parse().unwrap()));
    assert_eq!(config.serve.grace_period, Duration::from_secs(5));
    let dirs = |flags: &[&str]| load(flags, Some("image-dir = [\"/\"]"), &[]).unwrap().registries.image_dirs;
    assert_eq!(dirs(&[]), [Path::new("/")]);
    assert_eq!(
        dirs(&["--image-dir", "/tmp", "--image-dir=/proc,/dev"]),
        ["/tmp", "/proc", "/dev"].map(Path::new)
    );
}

#[test]
fn a_store_s_images_come_first_and_its_list_is_the_gateway_s() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("images")).unwrap();
    fs::write(folder.path().join("images/index.json"), "{}").unwrap();
    let flags = ["--store", folder.path().to_str().unwrap(), "--image-dir=/tmp"];
    let node = load_for(Role::NODE, &flags, None, &[]).unwrap();
    assert!(node.store.is_none(), "a node needs no list");
    assert_eq!(node.registries.image_dirs, [folder.path(), Path::new("/tmp")]);
    assert!(load(&flags, None, &[]).unwrap_err().contains("functions.json: there is no such file"));
    fs::write(folder.path().join("functions.json"), r#"{"functions":[]}"#).unwrap();
    let gateway = load(&flags, None, &[]).unwrap();
    assert!(gateway.store.is_some());
    assert_eq!(gateway.registries.image_dirs, node.registries.image_dirs);
}

#[test]
fn all_mistakes_are_told_at_once() {
    let file = "lisssten = \"x\"\negress = \"10.0.0.1/8\"\nmemory-budget = \"lots\"\ncode-memory = \"0\"\ncode-idle = \"0s\"";
    let flags = [
        "--listen=8080",
        "--skip-tls-verify=https://x/",
        "--registry-mirror=docker.io",
        "--log-format=xml",
        "--image-dir=/nowhere",
        "--store=/no/store",
        "--log-bytes-per-function=1Ki",
        "--log-bytes=1",
        "--logs-provider-url=ftp://user:canary@x",
    ];
    let environment = [("basic_auth", "maybe"), ("upstream_timeout", "-1s")];
    let message = load(&flags, Some(file), &environment).unwrap_err();
    for part in [
        "\"lisssten\"",
        "egress policy",
        "memory-budget",
        "code-memory is nothing",
        "code-idle \"0s\"",
        "listen \"8080\"",
        "upstream_timeout \"-1s\"",
        "skip-tls-verify \"https://x/\"",
        "registry-mirror",
        "image-dir: there is no folder /nowhere",
        "store: /no/store/functions.json",
        "store: /no/store/images is no OCI image layout",
        "log-format",
        "log-bytes-per-function is too little",
        "log-bytes, 1 bytes",
        "logs-provider-url",
        "basic_auth",
    ] {
        assert!(message.contains(part), "{part}: {message}");
    }
}

#[test]
fn a_file_that_is_not_toml_or_of_wrong_types_is_pointed_at() {
    assert!(load(&[], Some("listen: x"), &[]).unwrap_err().contains("line 1"));
    assert!(load(&[], Some("listen = 8080"), &[]).unwrap_err().contains("expected a string"));
}

#[test]
fn an_open_gateway_must_be_meant() {
    assert_eq!(load(&["--no-auth"], None, &[]).unwrap().serve.auth, Auth::Off);
    let message = load(&["--no-auth", "--listen=0.0.0.0:8080"], None, &[]).unwrap_err();
    assert!(message.contains("--no-auth-anywhere"), "{message}");
    assert!(load(&["--no-auth", "--no-auth-anywhere", "--listen=0.0.0.0:8080"], None, &[]).is_ok());
    assert_eq!(
        load(&["--no-auth=false"], Some("no-auth = true"), &[]).unwrap().serve.auth,
        Auth::DataDirectory
    );
}

#[test]
fn a_switch_is_set_in_the_words_that_environments_use() {
    for (flag, auth) in [
        ("--no-auth=1", Auth::Off),
        ("--no-auth=true", Auth::Off),
        ("--no-auth", Auth::Off),
        ("--no-auth=0", Auth::DataDirectory),
        ("--no-auth=false", Auth::DataDirectory),
    ] {
        assert_eq!(load(&[flag], None, &[]).unwrap().serve.auth, auth, "{flag}");
    }
    assert!(load(&["--no-auth=maybe"], None, &[]).unwrap_err().contains("neither true nor false"));
}

#[test]
fn names_of_openfaas_are_honoured_where_ours_are_silent() {
    let environment =
        [("upstream_timeout", "2m"), ("secret_mount_path", "/run/secrets"), ("basic_auth", "true")];
    let config = load(&[], None, &environment).unwrap();
    assert_eq!(config.max_exec_timeout, Duration::from_secs(120));
    assert_eq!(config.serve.auth, Auth::Mounted("/run/secrets".into()));
    assert_eq!(
        load(&["--max-exec-timeout=1m"], None, &environment).unwrap().max_exec_timeout,
        Duration::from_secs(60)
    );
    assert_eq!(load(&[], None, &[("basic_auth", "false")]).unwrap().serve.auth, Auth::Off);
}

#[test]
fn data_lies_where_the_system_keeps_data() {
    let environment = |pairs: &'static [(&'static str, &'static str)]| {
        move |name: &str| pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
    };
    let of = |pairs| default_data_dir(&environment(pairs)).display().to_string();
    if rustix::process::geteuid().is_root() {
        assert_eq!(of(&[("XDG_DATA_HOME", "/x")]), "/var/lib/fawn");
    } else {
        assert_eq!(of(&[("XDG_DATA_HOME", "/x"), ("HOME", "/h")]), "/x/fawn");
        assert_eq!(of(&[("XDG_DATA_HOME", "relative"), ("HOME", "/h")]), "/h/.local/share/fawn");
    }
}

#[test]
fn threads_that_serve_are_some_and_not_too_many() {
    assert_eq!(load(&["--serve-threads=3"], None, &[]).unwrap().serve.serve_threads.get(), 3);
    for wrong in ["0", "1025"] {
        let error = load(&[&format!("--serve-threads={wrong}")], None, &[]).unwrap_err();
        assert!(error.contains("serve-threads is none or more than 1024"), "{error}");
    }
}

#[test]
fn logs_are_bounded_and_read_where_the_operator_says() {
    let config = load(&["--log-bytes-per-function=1Mi", "--log-bytes=64Mi"], None, &[]).unwrap();
    assert_eq!(config.log_limits, LogLimits { function_bytes: 1 << 20, total_bytes: 64 << 20 });
    assert_eq!(config.logs_server, None);
    let environment = [("logs_provider_url", "http://loki-provider:8080/")];
    assert_eq!(load(&[], None, &environment).unwrap().logs_server.unwrap(), environment[0].1);
    let flag = ["--logs-provider-url=https://logs.example"];
    assert_eq!(load(&flag, None, &environment).unwrap().logs_server.unwrap(), "https://logs.example");
    // A node has its own.
    assert_eq!(load_for(Role::NODE, &[], None, &environment).unwrap().logs_server, None);
    let refused = load_for(Role::NODE, &flag, None, &[]).unwrap_err();
    assert!(refused.contains("logs-provider-url") && refused.contains("fawn gateway"), "{refused}");
}

#[test]
fn a_key_that_is_no_setting_is_told_with_its_line_and_what_may_be_meant() {
    let file = "listen = \"127.0.0.1:1\"\n\n# the log\nlogs-format = \"json\"\nregistry-miror = []\n\n[colour]\nred = 1\n";
    let message = load(&[], Some(file), &[]).unwrap_err();
    for part in [
        "line 4 of the configuration file has \"logs-format\", which is no setting: log-format may be meant",
        "line 5 of the configuration file has \"registry-miror\", which is no setting: registry-mirror may be meant",
        "line 7 of the configuration file has \"colour\", which is no setting\n",
    ] {
        assert!(format!("{message}\n").contains(part), "{part} is not in {message}");
    }
}

#[test]
fn a_name_is_not_listened_on() {
    let message = load(&["--listen=localhost:8080"], None, &[]).unwrap_err();
    assert!(
        message.contains("\"localhost:8080\" is not an IP address") && message.contains("127.0.0.1:8080")
    );
}
