use crate::Api;

fn lines(count: i64) -> Api {
    let api = Api::with(&["f", "f.dev"]);
    for second in 1..=count {
        let at = jiff::Timestamp::from_second(second).unwrap();
        api.0.log("f", at, &format!("line {second}"));
    }
    api
}

#[tokio::test]
async fn lines_are_json_one_a_line() {
    let api = lines(2);
    let answer = api.get("/system/logs?name=f&tail=-1").await;
    assert_eq!((answer.status.as_u16(), answer.header("content-type")), (200, "application/x-ndjson"));
    let line = |second| {
        format!(
            r#"{{"name":"f","namespace":"openfaas-fn","instance":"fake-1","timestamp":"1970-01-01T00:00:0{second}Z","text":"line {second}"}}"#
        )
    };
    assert_eq!(answer.body, format!("{}\n{}\n", line(1), line(2)));
    assert_eq!(api.get("/system/logs?name=f&namespace=dev").await.body, "");
}

#[tokio::test]
async fn the_query_says_which() {
    let api = lines(5);
    for (query, first, count) in [
        ("", 1, 5),
        ("&tail=2", 4, 2),
        ("&tail=1&tail=3", 3, 3),
        ("&tail=0", 1, 5),
        ("&tail=-7", 1, 5),
        ("&tail=", 1, 5),
        ("&since=1970-01-01T00:00:04Z", 4, 2),
        ("&since=1970-01-01T01:00:04%2B01:00&tail=1", 5, 1),
        ("&follow=false", 1, 5),
        ("&follow=perhaps", 1, 5),
    ] {
        let body = api.get(&format!("/system/logs?name=f{query}")).await.body;
        assert_eq!(body.lines().count(), count, "{query}");
        assert!(body.lines().next().unwrap().contains(&format!("\"line {first}\"")), "{query}: {body}");
    }
}

#[tokio::test]
async fn what_cannot_be_told_is_refused() {
    let api = lines(1);
    for (query, status, code) in [
        ("", 422, "invalid-log-query"),
        ("?name=", 422, "invalid-log-query"),
        ("?name=f&tail=few", 422, "invalid-log-query"),
        ("?name=f&since=yesterday", 422, "invalid-log-query"),
        ("?name=g", 404, "not-found"),
        ("?name=Not a name", 404, "not-found"),
        ("?name=f&namespace=x", 400, "no-such-namespace"),
    ] {
        let answer = api.get(&format!("/system/logs{}", query.replace(' ', "%20"))).await;
        let (told, told_code, _) = answer.error();
        assert_eq!((told, told_code), (status, code), "{query}");
    }
    let answer = api.get("/system/logs?name=f&since=5m").await;
    assert!(answer.body.contains("\"5m\" is no time of RFC 3339, such as 2026-"), "{}", answer.body);
}
