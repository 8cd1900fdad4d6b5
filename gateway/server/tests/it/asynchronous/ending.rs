//! What a worker leaves behind.

use std::sync::Arc;

use gateway_queue::State;
use http_body_util::BodyExt;
use runtime_api::Invocation;
use tokio::{sync::Semaphore, time::timeout};

use super::{
    queued::{PATIENCE, Queued},
    target::Target,
};
use crate::edge::ok;

#[tokio::test]
async fn a_worker_that_is_to_end_finishes_what_it_began_and_takes_no_more() {
    let gateway = Queued::idle();
    let mut target = Target::start();
    let (began, let_go) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
    let (begin, wait) = (Arc::clone(&began), Arc::clone(&let_go));
    gateway.provider.script("f", move |invocation: Invocation| {
        let (begin, wait) = (Arc::clone(&begin), Arc::clone(&wait));
        async move {
            begin.add_permits(1);
            wait.acquire().await.unwrap().forget();
            ok(invocation.request.into_body().collect().await.unwrap().to_bytes())
        }
    });
    gateway.keep("f", "begun", &[&target.header()], "hi").await;
    let worker = gateway.work();
    timeout(PATIENCE, began.acquire()).await.unwrap().unwrap().forget();
    gateway.no_more.cancel();
    gateway.keep("f", "late", &[], "").await;
    let_go.add_permits(2);
    assert_eq!(target.next().await.body, "hi");
    timeout(PATIENCE, worker).await.unwrap().unwrap();
    assert_eq!(gateway.known("begun").await[0].state, State::Succeeded);
    assert_eq!(gateway.known("late").await[0].state, State::Queued);
}
