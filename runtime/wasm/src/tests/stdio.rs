use super::*;

#[tokio::test]
async fn any_status_is_told_as_a_process_would_tell_it() {
    let bench = Bench::new();
    for (code, status, start) in [
        ("125", 500, "exit status 125\n"),
        ("200", 500, "exit status 200\n"),
        ("255", 500, "exit status 255\n"),
        ("-1", 500, "exit status 255\n"),
        ("256", 200, "half done\n"),
    ] {
        let guest = guests::EXIT_CODE.replace("(i32.const 3)", &format!("(i32.const {code})"));
        let pool = bench.pool(&guest, |_| {}).await;
        let response = call(&pool, "").await.unwrap();
        assert_eq!(response.status(), status, "{code}");
        let answer = text(response).await;
        assert!(answer.starts_with(start) && answer.ends_with("half done\n"), "{code}: {answer}");
    }
}
