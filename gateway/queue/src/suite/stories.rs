use http::HeaderValue;

use super::*;

pub(super) async fn comes_out_as_it_went_in(rig: Rig) {
    let queue = rig.open();
    let mut headers = HeaderMap::new();
    headers.append("x-twice", HeaderValue::from_static("one"));
    headers.append("x-twice", HeaderValue::from_bytes(b"\xff\xfe").unwrap());
    let sizes = [0, 1, 64 << 10, (64 << 10) + 1, 300_000];
    for size in sizes {
        let body: Vec<u8> = (0..size).map(|at| u8::try_from(at % 251).unwrap()).collect();
        let stream: ByteStream = Box::pin(futures_util::stream::iter(
            body.chunks(7000).map(|chunk| Ok(chunk.to_vec().into())).collect::<Vec<_>>(),
        ));
        let call = NewCall {
            method: Method::PATCH,
            path_and_query: "/a%2Fb/../c?d=%20".into(),
            headers: headers.clone(),
            callback_url: Some("https://example.com/?x=1".into()),
            body: Content::Stream(stream),
            ..call("env.dev", &format!("id-{size}"), "")
        };
        assert!(!queue.push(call).await.unwrap().existed);
    }
    queue.close().await.unwrap();
    drop(queue);

    let queue = rig.open();
    for size in sizes {
        let mut delivery = take_one(&queue).await;
        assert_eq!(delivery.function.as_str(), "env.dev");
        assert_eq!(delivery.method, Method::PATCH);
        assert_eq!(delivery.path_and_query, "/a%2Fb/../c?d=%20");
        assert_eq!(delivery.headers, headers);
        assert_eq!(delivery.call_id.as_str(), format!("id-{size}"));
        assert_eq!(delivery.callback_url.as_deref(), Some("https://example.com/?x=1"));
        assert_eq!((delivery.accepted, delivery.attempt), (rig.clock.now(), 1));
        let body = body(&mut delivery).await;
        assert_eq!(body.len(), size);
        assert!(body.iter().enumerate().all(|(at, byte)| usize::from(*byte) == at % 251), "{size}");
        delivery.settle(outcome(Then::Succeeded, 201)).await.unwrap();
        let [status] = <[_; 1]>::try_from(find(&queue, &format!("id-{size}")).await).unwrap();
        assert_eq!((status.state, status.ended), (State::Succeeded, Some(rig.clock.now())));
        assert_eq!(status.attempts[0].status, Some(201));
        assert_eq!(status.attempts[0].duration, Some(Duration::from_millis(12)));
    }
    let FunctionCounts { queued, running, waiting, dead, succeeded, bytes, .. } =
        queue.counts().await.unwrap().remove(0);
    assert_eq!((queued, running, waiting, dead, succeeded, bytes), (0, 0, 0, 0, 5, 0));
}

pub(super) async fn come_in_order(rig: Rig) {
    let queue = rig.open();
    for number in 0..10 {
        queue.push(call("a", &number.to_string(), "")).await.unwrap();
    }
    assert_eq!(queue.counts().await.unwrap()[0].oldest_queued, Some(rig.clock.now()));
    let mut order = Vec::new();
    while order.len() < 10 {
        order.extend(take(&queue, 3).await);
    }
    let order: Vec<&str> = order.iter().map(|delivery| delivery.call_id.as_str()).collect();
    assert_eq!(order, ["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]);
}

pub(super) async fn functions_take_turns(rig: Rig) {
    let queue = rig.open();
    for number in 0..50 {
        queue.push(call("greedy", &number.to_string(), "")).await.unwrap();
    }
    for name in ["modest", "small"] {
        queue.push(call(name, "first", "")).await.unwrap();
        queue.push(call(name, "second", "")).await.unwrap();
    }
    let mut taken = take(&queue, 4).await;
    taken.extend(take(&queue, 2).await);
    for name in ["greedy", "modest", "small"] {
        let of = taken.iter().filter(|delivery| delivery.function == function(name)).count();
        assert_eq!(of, 2, "{name}");
    }
    let only_greedy: Room = Arc::new(|name| if *name == function("greedy") { 3 } else { 0 });
    queue.push(call("modest", "third", "")).await.unwrap();
    assert_eq!(queue.next(10, only_greedy).await.unwrap().len(), 3);
}

pub(super) async fn a_retry_holds_up_nobody(rig: Rig) {
    let queue = rig.open();
    for call_id in ["first", "second", "third"] {
        queue.push(call("a", call_id, "body")).await.unwrap();
    }
    let again = rig.clock.now() + Duration::from_secs(10);
    let failed = Outcome { error: "x".repeat(5000), ..outcome(Then::RetryAt(again), 500) };
    take_one(&queue).await.settle(failed).await.unwrap();
    let [status] = <[_; 1]>::try_from(find(&queue, "first").await).unwrap();
    assert_eq!((status.state, status.due, status.last_error.len()), (State::Waiting, Some(again), 1024));

    assert_eq!(take_one(&queue).await.call_id.as_str(), "second");
    rig.advance(&queue, 10);
    let delivery = take_one(&queue).await;
    // "second" was dropped and is due again; "first" was accepted earlier.
    assert_eq!((delivery.call_id.as_str(), delivery.attempt), ("first", 2));
    delivery.settle(outcome(Then::Succeeded, 200)).await.unwrap();
    assert_eq!(find(&queue, "first").await[0].attempts.len(), 2);
}

pub(super) async fn put_back_was_not_tried(rig: Rig) {
    let queue = rig.open();
    queue.push(call("a", "first", "body")).await.unwrap();
    queue.push(call("a", "second", "body")).await.unwrap();
    for failed in 0..2 {
        let again = rig.clock.now() + Duration::from_secs(5);
        let no_room = Outcome { error: "no room".into(), ..outcome(Then::PutBack(again), 429) };
        let delivery = take_one(&queue).await;
        assert_eq!((delivery.call_id.as_str(), delivery.attempt), ("first", failed + 1));
        delivery.settle(no_room).await.unwrap();
        let [status] = <[_; 1]>::try_from(find(&queue, "first").await).unwrap();
        assert_eq!((status.state, status.due), (State::Waiting, Some(again)));
        assert_eq!(status.attempts.len(), usize::try_from(failed).unwrap());
        assert_eq!(status.last_error, "no room");

        rig.advance(&queue, 5);
        let delivery = take_one(&queue).await;
        assert_eq!((delivery.call_id.as_str(), delivery.attempt), ("first", failed + 1));
        delivery.settle(outcome(Then::RetryAt(rig.clock.now()), 500)).await.unwrap();
    }
    let delivery = take_one(&queue).await;
    assert_eq!((delivery.call_id.as_str(), delivery.attempt), ("first", 3));
    queue.cancel(&CallId::new("first")).await.unwrap();
    delivery.settle(outcome(Then::PutBack(rig.clock.now()), 429)).await.unwrap();
    assert_eq!(state(&queue, "first").await, State::Cancelled);
    assert_eq!(take_one(&queue).await.call_id.as_str(), "second");
}

pub(super) async fn whoever_waits_is_woken(rig: Rig) {
    let queue = rig.open();
    let mut next = queue.next(1, room(1));
    assert!(waits(&queue, &mut next).await);
    queue.push(call("a", "pushed", "")).await.unwrap();
    let delivery = next.await.unwrap().remove(0);

    let later = rig.clock.now() + Duration::from_secs(60);
    let delayed = NewCall { not_before: Some(later), ..call("a", "delayed", "") };
    queue.push(delayed).await.unwrap();
    delivery.settle(outcome(Then::RetryAt(later + Duration::from_secs(60)), 503)).await.unwrap();
    assert_eq!(state(&queue, "delayed").await, State::Waiting);
    let mut next = queue.next(1, room(1));
    assert!(waits(&queue, &mut next).await);
    rig.advance(&queue, 60);
    assert_eq!(next.await.unwrap()[0].call_id.as_str(), "delayed");
    rig.advance(&queue, 60);
    settle_down(&queue).await;

    let places = Arc::new(Mutex::new(0));
    let asked = Arc::clone(&places);
    let mut next = queue.next(9, Arc::new(move |_| *asked.lock().unwrap()));
    assert!(waits(&queue, &mut next).await);
    *places.lock().unwrap() = 2;
    queue.wake();
    assert_eq!(next.await.unwrap().len(), 2);
}

pub(super) async fn lost_by_its_worker(rig: Rig) {
    let queue = rig.open();
    queue.push(call("a", "lost", "")).await.unwrap();
    for attempt in 1..=3 {
        assert_eq!(take_one(&queue).await.attempt, attempt);
    }
    let mut next = queue.next(1, room(1));
    // Somebody who stops waiting takes nothing along.
    let _ = (&mut next).now_or_never();
    drop(next);
    let delivery = take_one(&queue).await;
    assert!((4..=5).contains(&delivery.attempt), "{}", delivery.attempt);
}

pub(super) async fn ran_at_the_end(rig: Rig) {
    let queue = rig.open();
    queue.push(call("a", "twice", "")).await.unwrap();
    queue.push(call("a", "unwanted", "")).await.unwrap();
    let running = take(&queue, 2).await;
    let cancelled = queue.cancel(&CallId::new("unwanted")).await.unwrap();
    assert_eq!(cancelled, Cancelled { ended: 0, told: 1 });
    queue.close().await.unwrap();
    drop((running, queue));

    let queue = rig.open();
    assert_eq!(state(&queue, "unwanted").await, State::Cancelled);
    assert_eq!(state(&queue, "twice").await, State::Queued);
    let delivery = take_one(&queue).await;
    assert_eq!((delivery.call_id.as_str(), delivery.attempt), ("twice", 2));
}

pub(super) async fn one_key_is_one_call(rig: Rig) {
    let queue = rig.open();
    let keyed = |name: &str, call_id: &str| NewCall {
        idempotency_key: Some("key".into()),
        ..call(name, call_id, "")
    };
    let first = queue.push(keyed("a", "first")).await.unwrap();
    let again = queue.push(keyed("a", "second")).await.unwrap();
    assert_eq!(again, Accepted { id: first.id, call_id: CallId::new("first"), existed: true });
    assert!(!queue.push(keyed("b", "first")).await.unwrap().existed);
    let at_once = (0..50).map(|number| queue.push(keyed("c", &number.to_string())));
    let at_once = futures_util::future::try_join_all(at_once).await.unwrap();
    assert_eq!(at_once.iter().filter(|accepted| !accepted.existed).count(), 1);
    let same =
        |accepted: &&Accepted| (accepted.id, &accepted.call_id) == (at_once[0].id, &at_once[0].call_id);
    assert_eq!(at_once.iter().filter(same).count(), 50);
    let (one, other) =
        futures_util::join!(queue.push(call("a", "same", "")), queue.push(call("a", "same", "")));
    assert_ne!(one.unwrap().id, other.unwrap().id);
    assert_eq!(find(&queue, "same").await.len(), 2);

    for delivery in take(&queue, 3).await {
        delivery.settle(outcome(Then::Succeeded, 200)).await.unwrap();
    }
    let again = queue.push(keyed("a", "third")).await.unwrap();
    assert_eq!((again.existed, again.call_id.as_str()), (true, "first"));
    rig.advance(&queue, 25 * 3600);
    settle_down(&queue).await;
    assert!(!queue.push(keyed("a", "fourth")).await.unwrap().existed);
}

pub(super) async fn all_calls_of_a_function_are_cancelled_at_once(rig: Rig) {
    let queue = rig.open();
    let later = Some(rig.clock.now() + Duration::from_secs(60));
    for number in 0..700 {
        let not_before = later.filter(|_| number % 2 == 0);
        for name in ["a", "b"] {
            queue.push(NewCall { not_before, ..call(name, &number.to_string(), "") }).await.unwrap();
        }
    }
    let running = take(&queue, 2).await;
    let one = running.iter().find(|delivery| delivery.function == function("a")).unwrap();
    assert_eq!(queue.clear(&function("a")).await.unwrap(), Cancelled { ended: 699, told: 1 });
    one.cancelled().await;
    let counts = queue.counts().await.unwrap();
    let left: Vec<_> = counts.iter().map(|counts| (counts.queued, counts.waiting, counts.running)).collect();
    assert_eq!(left, [(0, 0, 1), (349, 350, 1)]);
    assert_eq!(queue.clear(&function("nobody")).await.unwrap(), Cancelled::default());
}

pub(super) async fn cancelled_calls_do_not_run(rig: Rig) {
    let queue = rig.open();
    let later = Some(rig.clock.now() + Duration::from_secs(60));
    queue.push(call("a", "x", "running")).await.unwrap();
    let running = take_one(&queue).await;
    queue.push(call("a", "x", vec![7; 100_000])).await.unwrap();
    queue.push(NewCall { not_before: later, ..call("b", "x", "") }).await.unwrap();
    queue.push(call("a", "y", "other")).await.unwrap();
    let mut told = Box::pin(running.cancelled());
    assert!(waits(&queue, &mut told).await);
    assert_eq!(queue.cancel(&CallId::new("x")).await.unwrap(), Cancelled { ended: 2, told: 1 });
    told.await;
    running.settle(outcome(Then::RetryAt(rig.clock.now()), 500)).await.unwrap();
    assert!(find(&queue, "x").await.iter().all(|status| status.state == State::Cancelled));
    assert_eq!(queue.cancel(&CallId::new("x")).await.unwrap(), Cancelled::default());

    rig.advance(&queue, 60);
    assert_eq!(take_one(&queue).await.call_id.as_str(), "y");
    let mut next = queue.next(1, Arc::new(|name| usize::from(*name == function("b"))));
    assert!(waits(&queue, &mut next).await);
}

pub(super) async fn dead_letters(rig: Rig) {
    let queue = rig.open();
    for number in 0..5 {
        queue.push(call("a", &number.to_string(), vec![number; 70_000])).await.unwrap();
        let dead = Outcome { error: "gave up".into(), ..outcome(Then::Dead, 502) };
        take_one(&queue).await.settle(dead).await.unwrap();
    }
    let letters = queue.dead_letters(&function("a"), Page::first(3)).await.unwrap();
    assert_eq!(letters.len(), 3);
    let rest = Page { after: Some(letters[2].id), limit: 10 };
    let rest = queue.dead_letters(&function("a"), rest).await.unwrap();
    assert_eq!((rest.len(), rest[1].state, rest[1].last_error.as_str()), (2, State::Dead, "gave up"));
    assert_eq!(queue.counts().await.unwrap()[0].dead, 5);

    assert_eq!(queue.replay(&function("a"), Which::One(letters[1].id)).await.unwrap(), 1);
    let mut delivery = take_one(&queue).await;
    assert_eq!((delivery.call_id.as_str(), delivery.attempt), ("1", 1));
    assert_eq!(body(&mut delivery).await, vec![1; 70_000]);
    delivery.settle(outcome(Then::Succeeded, 200)).await.unwrap();
    assert_eq!(queue.purge(&function("a"), Which::One(letters[0].id)).await.unwrap(), 1);
    assert!(find(&queue, "0").await.is_empty());
    assert_eq!(queue.replay(&function("a"), Which::All).await.unwrap(), 3);
    for _ in 0..3 {
        take_one(&queue).await.settle(outcome(Then::Dead, 502)).await.unwrap();
    }
    assert_eq!(queue.purge(&function("b"), Which::All).await.unwrap(), 0);
    assert_eq!(queue.purge(&function("a"), Which::All).await.unwrap(), 3);
    let counts = queue.counts().await.unwrap();
    assert_eq!((counts[0].dead, counts[0].bytes, counts[0].succeeded), (0, 0, 1));
}

pub(super) async fn ended_calls_are_forgotten(rig: Rig) {
    let queue = rig.open();
    for number in 0..3 {
        queue.push(call("a", &number.to_string(), "")).await.unwrap();
    }
    take_one(&queue).await.settle(outcome(Then::Succeeded, 200)).await.unwrap();
    rig.advance(&queue, 3600);
    queue.cancel(&CallId::new("1")).await.unwrap();
    take_one(&queue).await.settle(outcome(Then::Dead, 500)).await.unwrap();
    rig.advance(&queue, 23 * 3600);
    settle_down(&queue).await;
    assert!(find(&queue, "0").await.is_empty());
    assert_eq!(state(&queue, "1").await, State::Cancelled);
    rig.advance(&queue, 3600);
    settle_down(&queue).await;
    assert!(find(&queue, "1").await.is_empty());
    assert_eq!(state(&queue, "2").await, State::Dead);
    queue.purge(&function("a"), Which::All).await.unwrap();
    assert!(queue.counts().await.unwrap().is_empty());
}

pub(super) async fn a_body_that_breaks_off(rig: Rig) {
    let queue = rig.open();
    for size in [10, 100_000] {
        let pieces = [Ok(vec![1; size].into()), Err(std::io::Error::other("reset"))];
        let broken = Content::Stream(Box::pin(futures_util::stream::iter(pieces)));
        let call = NewCall { body: broken, ..call("a", "broken", "") };
        assert!(matches!(queue.push(call).await, Err(Error::Body(_))));
    }
    assert!(queue.counts().await.unwrap().is_empty());
}

pub(super) async fn a_closed_queue_says_so(rig: Rig) {
    let queue = rig.open();
    let mut next = queue.next(1, room(1));
    assert!(waits(&queue, &mut next).await);
    queue.close().await.unwrap();
    assert!(matches!(next.await, Err(Error::Closed)));
    assert!(matches!(queue.push(call("a", "late", "")).await, Err(Error::Closed)));
    assert!(matches!(queue.close().await, Err(Error::Closed)));
    assert!(matches!(queue.counts().await, Err(Error::Closed)));
}
