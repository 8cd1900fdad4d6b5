use clap::Parser;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
};

use super::*;

const LIST: &str = r#"{"version": "1", "functions": [
    {"name": "resize", "title": "Resize", "author": "me", "description": "Makes images\nsmaller", "fprocess": "resize --fast",
     "repo_url": "https://example.com/r", "readOnlyRootFilesystem": true,
     "environment": {"WIDTH": "10", "A": "b"}, "labels": {"l": "1"}, "annotations": {"topic": "t"},
     "images": {"arm64": "oci:images:other", "x86_64": "oci:images:resize"}},
    {"name": "bare", "title": "B\u001b[2Jare"}
]}"#;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: StoreArguments,
}

fn parse(line: &[&str]) -> StoreArguments {
    Line::try_parse_from(["store"].iter().chain(line)).unwrap().arguments
}

fn list() -> StoreList {
    StoreList::parse(LIST.as_bytes()).unwrap()
}

#[test]
fn the_list_is_that_of_the_flag_else_of_the_environment_else_of_the_gateway() {
    let url = |line: &[&str], variables: &[(&str, &str)]| {
        let find = |name: &str| variables.iter().find(|(key, _)| *key == name);
        let url = parse(line).list_url(&|name| find(name).map(|(_, value)| (*value).to_owned()));
        url.map(|url| url.to_string()).map_err(|mistake| mistake.to_string())
    };
    let (flag, store) = ("https://a.example/f@1/functions.json", ("OPENFAAS_STORE", "http://b.example/s"));
    assert_eq!(url(&["list", "--url", flag], &[store]).unwrap(), flag);
    assert_eq!(url(&["list"], &[store]).unwrap(), "http://b.example/s");
    let gateway = [("OPENFAAS_STORE", ""), ("OPENFAAS_URL", "g:1/prefix/")];
    assert_eq!(url(&["list"], &gateway).unwrap(), "http://g:1/prefix/store/functions.json");
    assert_eq!(url(&["-g", "h:2", "list"], &gateway).unwrap(), "http://h:2/store/functions.json");
    for bad in ["functions.json", "file:///etc/passwd", "https://me:hunter2@a.example/", "ftp://me:hunter2@a"]
    {
        let mistake = url(&["list", "-u", bad], &[]).unwrap_err();
        assert!(
            mistake.contains("https://example.com/functions.json") && !mistake.contains("hunter"),
            "{mistake}"
        );
    }
}

#[test]
fn a_function_is_deployed_as_the_store_says_and_the_command_line_adds() {
    let additions = |line: &[&str]| match parse(&[&["deploy", "resize"], line].concat()).command {
        StoreCommand::Deploy { added, .. } => added.additions(),
        other => panic!("{other:?}"),
    };
    let (list, none) = (list(), additions(&[]));
    let plain = spec(&list.functions[0], None, none.clone()).unwrap();
    let expected = json!({
        "service": "resize", "image": "oci:images:resize", "envProcess": "resize --fast",
        "envVars": {"WIDTH": "10", "A": "b"}, "labels": {"l": "1"}, "annotations": {"topic": "t"},
        "readOnlyRootFilesystem": true,
    });
    assert_eq!(json!(plain), expected);
    let added =
        additions(&["-e", "WIDTH=20", "-l", "m=2", "--annotation", "topic=u", "--secret", "s", "-n", "dev"]);
    let more = spec(&list.functions[0], Some("thumbs"), added).unwrap();
    assert_eq!(more.name().unwrap().as_str(), "thumbs.dev");
    assert_eq!((&*more.env_vars["WIDTH"], &*more.env_vars["A"]), ("20", "b"));
    assert_eq!((&*more.labels["l"], &*more.labels["m"], &*more.annotations["topic"]), ("1", "2", "u"));
    assert_eq!(more.secrets, ["s"]);

    let refused = |function, name, added| spec(function, name, added).unwrap_err().to_string();
    assert!(refused(&list.functions[1], None, none.clone()).contains("has no image"));
    assert!(refused(&list.functions[0], Some("Upper"), none).contains("Upper"));
}

#[test]
fn a_name_that_is_not_there_is_told_with_the_nearest() {
    let list = list();
    assert_eq!(find(&list, "resize").unwrap().title, "Resize");
    assert!(find(&list, "resise").unwrap_err().to_string().contains("resize may be meant"));
    assert!(!find(&list, "nothing").unwrap_err().to_string().contains("may be meant"));
}

#[test]
fn lists_are_columns_and_steer_no_terminal() {
    let shown = table(&list());
    let expected = "FUNCTION  AUTHOR  DESCRIPTION\n\
                    resize    me      Makes images smaller\n\
                    bare              (cannot be deployed: it has no image) B [2Jare\n";
    assert_eq!(shown, expected);
    let long = StoreFunction { name: "x".repeat(100_000), ..StoreFunction::default() };
    let functions = [vec![long], vec![StoreFunction::default(); 1000]].concat();
    let shown = table(&StoreList { version: String::new(), functions });
    assert!(shown.len() < 300_000, "one long name does not widen every line");
    assert!(table(&StoreList { version: String::new(), functions: Vec::new() }).contains("empty"));
}

#[test]
fn a_function_is_described_without_what_is_empty() {
    let list = list();
    let expected = "name         resize\n\
                    title        Resize\n\
                    author       me\n\
                    description  Makes images smaller\n\
                    image        oci:images:resize\n\
                    source       https://example.com/r\n\
                    fprocess     resize --fast\n\
                    read-only    yes\n\
                    environment  A=b\n\
                    environment  WIDTH=10\n\
                    label        l=1\n\
                    annotation   topic=t\n";
    assert_eq!(in_words(&list.functions[0]), expected);
    let bare = in_words(&list.functions[1]);
    assert_eq!(bare, "name         bare\ntitle        B [2Jare\nimage        none: it cannot be deployed\n");
}

/// What is read of a server that answers once, with that head and body.
async fn fetched(head: &str, body: &[u8]) -> Result<StoreList, String> {
    // Installed already when another test of this process was faster.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = Url::parse(&format!("http://{}/f.json?token=hunter2", listener.local_addr().unwrap())).unwrap();
    let answer = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut request = [0; 4096];
        let count = stream.read(&mut request).await.unwrap();
        assert!(!String::from_utf8_lossy(&request[..count]).to_lowercase().contains("authorization"));
        let head = format!("HTTP/1.1 {head}\r\nConnection: close\r\nContent-Length: {}\r\n\r\n", body.len());
        // Whoever has read enough goes away.
        let _ = stream.write_all(&[head.as_bytes(), body].concat()).await;
    };
    let (fetched, ()) = tokio::join!(fetch(&url), answer);
    fetched.map_err(|error| format!("{error:#}"))
}

#[tokio::test]
async fn a_list_is_read_within_bounds_and_errors_are_told() {
    assert_eq!(fetched("200 OK", LIST.as_bytes()).await.unwrap().functions.len(), 2);
    let long = [LIST.as_bytes(), &vec![b' '; StoreList::MAX_BYTES]].concat();
    for (head, body, expected) in [
        ("200 OK", &long[..], "longer than 1048576 bytes"),
        ("200 OK", b"<html>", "has no list of a store"),
        ("500 Oops", &long[..], "500 Internal Server Error: {\"version\""),
        ("404 Not Found", b"no store\x1b[2J here\n", "404 Not Found: no store [2J here"),
        (
            "301 Moved Permanently\r\nLocation: https://other.example/f?token=hunter2",
            b"",
            "refers to https://other.example/f",
        ),
    ] {
        let error = fetched(head, body).await.unwrap_err();
        assert!(error.contains(expected), "{error}");
        assert!(!error.contains('\u{1b}') && !error.contains("hunter"), "{error:?}");
    }
}
