use futures_util::future::join_all;
use runtime_api::ProviderInfo;
use runtime_testing::FakeProvider;

use super::*;

fn activator(patience: Duration) -> Activator {
    Activator::new(ScaleFromZero { patience, introduction: Arc::default() })
}

fn name(function: &str) -> FunctionName {
    FunctionName::parse(function).unwrap()
}

#[tokio::test]
async fn a_function_at_zero_is_scaled_to_what_it_wants() {
    let fake = FakeProvider::new();
    fake.add("f");
    let mut spec = fake.status(&name("f")).await.unwrap().spec;
    for (label, replicas) in [(None, 1), (Some("3"), 3), (Some("0"), 1), (Some("many"), 1)] {
        spec.labels =
            label.map(|label| ("com.openfaas.scale.min".into(), label.to_owned())).into_iter().collect();
        fake.update(spec.clone()).await.unwrap();
        fake.scale(&name("f"), 0).await.unwrap();
        activator(LONGEST).wake(&*fake, &name("f")).await.unwrap();
        assert_eq!(fake.status(&name("f")).await.unwrap().replicas, replicas, "{label:?}");
    }
}

#[tokio::test]
async fn an_unknown_function_is_not_found_and_a_provider_that_is_away_is_said_to_be() {
    let (fake, activator) = (FakeProvider::new(), activator(LONGEST));
    let code = async || activator.wake(&*fake, &name("none")).await.unwrap_err().code().to_owned();
    assert_eq!(code().await, "not-found");
    fake.fail_next(Error::unreachable("away", "x"));
    assert_eq!(code().await, "provider-unreachable");
}

#[tokio::test(start_paused = true)]
async fn trying_to_scale_ends_after_twenty_times() {
    let (fake, activator) = (FakeProvider::new(), activator(LONGEST));
    fake.add("f");
    fake.scale(&name("f"), 0).await.unwrap();
    activator.wake(&*fake, &name("f")).await.unwrap();
    fake.scale(&name("f"), 0).await.unwrap();
    let status = fake.status(&name("f")).await.unwrap();
    for _ in 0..TRIES {
        fake.fail_next(Error::unavailable("busy", "x"));
    }
    let error = scale_up(&*fake, &name("f"), &status).await.unwrap_err();
    assert_eq!(error.code(), "internal");
    for _ in 1..TRIES {
        fake.fail_next(Error::unavailable("busy", "x"));
    }
    scale_up(&*fake, &name("f"), &status).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn all_that_wait_for_one_function_look_once() {
    let (fake, activator) = (FakeProvider::new(), activator(LONGEST));
    fake.add("f");
    let function = name("f");
    let calls = || join_all((0..100).map(|_| activator.wake(&*fake, &function)));
    assert!(calls().await.iter().all(Result::is_ok));
    assert_eq!(fake.status_asked(), 1);
    assert!(calls().await.iter().all(Result::is_ok));
    assert_eq!(fake.status_asked(), 1, "for a quarter of a second it is believed");
    tokio::time::advance(BELIEVED).await;
    assert!(calls().await.iter().all(Result::is_ok));
    assert_eq!(fake.status_asked(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_call_waits_for_a_replica_and_not_for_ever() {
    let (fake, activator) = (FakeProvider::new(), activator(Duration::from_secs(5)));
    fake.add("f");
    fake.set_available("f", 0);
    let (function, began) = (name("f"), Instant::now());
    let ready = async {
        sleep(Duration::from_secs(1)).await;
        fake.set_available("f", 1);
    };
    let (woken, ()) = tokio::join!(activator.wake(&*fake, &function), ready);
    woken.unwrap();
    assert!((1000..1200).contains(&began.elapsed().as_millis()), "{:?}", began.elapsed());

    fake.set_available("f", 0);
    tokio::time::advance(BELIEVED).await;
    let began = Instant::now();
    activator.wake(&*fake, &function).await.unwrap();
    assert_eq!(began.elapsed(), Duration::from_secs(5), "then the provider is to say what there is to say");
}

#[tokio::test(start_paused = true)]
async fn whoever_gives_up_leaves_the_turn_to_the_next() {
    let (fake, activator) = (FakeProvider::new(), activator(LONGEST));
    fake.add("f");
    fake.set_available("f", 0);
    let function = name("f");
    let impatient = timeout(Duration::from_secs(1), activator.wake(&*fake, &function));
    let patient = activator.wake(&*fake, &function);
    let ready = async {
        sleep(Duration::from_secs(2)).await;
        fake.set_available("f", 1);
    };
    let (impatient, patient, ()) = tokio::join!(impatient, patient, ready);
    assert!(impatient.is_err() && patient.is_ok());
}

#[tokio::test(start_paused = true)]
async fn those_who_waited_share_what_was_refused() {
    let (fake, activator) = (FakeProvider::new(), activator(LONGEST));
    fake.add("f");
    fake.set_available("f", 0);
    let function = name("f");
    let calls = join_all((0..100).map(|_| activator.wake(&*fake, &function)));
    let removed = async {
        sleep(PAUSE * 3 / 2).await;
        fake.remove(&function).await.unwrap();
    };
    let (calls, ()) = tokio::join!(calls, removed);
    assert!(calls.iter().all(|woken| woken.as_ref().is_err_and(|error| error.code() == "not-found")));
    assert_eq!(fake.status_asked(), 3, "at once, and after each of two pauses");
    fake.add("f");
    tokio::time::advance(PAUSE).await;
    activator.wake(&*fake, &function).await.unwrap();
}

#[tokio::test]
async fn a_provider_that_does_not_say_who_it_is_has_its_functions_woken() {
    let (fake, activator) = (FakeProvider::new(), activator(LONGEST));
    fake.add("f");
    fake.fail_next(Error::unavailable("its info is broken", "x"));
    activator.wake(&*fake, &name("f")).await.unwrap();
    assert_eq!(fake.status_asked(), 1);
}

#[tokio::test]
async fn a_provider_that_wakes_functions_itself_is_left_alone() {
    let (fake, activator) = (FakeProvider::new(), activator(LONGEST));
    fake.add_detail(ProviderInfo::WAKES_FUNCTIONS, "yes");
    activator.wake(&*fake, &name("none")).await.unwrap();
    assert_eq!(fake.status_asked(), 0);
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let (fake, activator) = (FakeProvider::new(), activator(LONGEST));
    for number in 0..MOST_REMEMBERED + 10 {
        assert!(activator.wake(&*fake, &name(&format!("f{number}"))).await.is_err());
    }
    assert!(activator.functions.lock().unwrap().len() <= MOST_REMEMBERED);
}
