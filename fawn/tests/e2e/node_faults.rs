//! Ports, folders and disks that are not as they should be.

use std::{
    net::TcpListener,
    time::{Duration, SystemTime},
};

use runtime_testing::guests::{ECHO, HELLO};

use crate::{
    edge::{Deployment, Edge, Plan},
    guests::{marked, text},
    process::not_run,
};

/// Whether this user may mount, in a namespace of its own; says what is not tested if not.
pub(crate) fn may_mount(test: &str) -> bool {
    let tried = std::process::Command::new("unshare")
        .args(["--mount", "sh", "-c", "mount -t tmpfs tmpfs /mnt"])
        .output();
    let may = tried.is_ok_and(|output| output.status.success());
    if !may {
        not_run(&format!("{test}: mounting a file system needs root"));
    }
    may
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_port_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    for flag in ["--listen", "--metrics-listen"] {
        let said = Plan::new().argument(flag).argument(&address).refused().await;
        assert!(said.contains(&address) && said.to_lowercase().contains("in use"), "{said}");
    }
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_data_directory_in_use_is_named_with_its_user() {
    let edge = Edge::start().await;
    let said = edge.again().refused().await;
    assert!(said.contains(&edge.process.pid.to_string()), "{said}");
    assert!(said.contains(edge.data_dir().to_str().unwrap()), "{said}");
    assert!(edge.call("hello", "").await.ok().contains("Hello"), "the first is not disturbed");
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_read_only_data_directory_is_named() {
    if !may_mount("a read-only data directory") {
        return;
    }
    let plan = Plan::new();
    let folder = plan.data_dir();
    std::fs::create_dir(&folder).unwrap();
    let folder = folder.to_str().unwrap().to_owned();
    let script = format!("mount --bind '{folder}' '{folder}'\nmount -o remount,bind,ro '{folder}'");
    let said = plan.mounts(script).refused().await;
    assert!(said.contains(&folder) && said.to_lowercase().contains("read-only"), "{said}");
}

#[tokio::test]
#[ignore = "run by scripts/test"]
async fn a_full_disk_refuses_what_is_new_and_serves_what_is_there() {
    if !may_mount("a full disk") {
        return;
    }
    let plan = Plan::new();
    let folder = plan.data_dir();
    std::fs::create_dir(&folder).unwrap();
    let script = format!("mount -t tmpfs -o size=12m tmpfs '{}'", folder.display());
    let mut edge = plan.mounts(script).start().await;
    edge.serve(Deployment::of("kept", &edge.upload(text(HELLO)).await)).await;

    let mut last = String::new();
    let mut filling = async || {
        for turn in 0..64 {
            // Half a mebibyte of nothing, in a custom section.
            let mut module = marked(&text(HELLO), &turn.to_string());
            module.extend([0, 0x82, 0x80, 0x20, 1, b'x']);
            module.resize(module.len() + 512 * 1024, 0);
            let answer = edge.upload_reply(module).await;
            if answer.status >= 300 {
                return answer;
            }
            last = answer.json()["image"].as_str().unwrap().to_owned();
        }
        panic!("32 MiB in 12 MiB")
    };
    let answer = filling().await;
    assert_eq!(answer.status, 507, "{answer}");
    edge.process.until(|log| log.contains("storage-full").then_some(())).await;
    assert_eq!(edge.call("kept", "").await.ok(), "Hello from Fawn\n");
    assert_eq!(edge.get("/healthz").await.status, 200);
    let refused = edge.update(&Deployment::of("kept", "fawn.local/module")).await;
    assert!(refused.status >= 400, "{refused}");
    assert_eq!(edge.call("kept", "").await.ok(), "Hello from Fawn\n", "a failed update changes nothing");

    // There is room for a module, and none for its code.
    let full = edge.update(&Deployment::of("kept", &last)).await;
    assert_eq!(full.status, 507, "{full}");
    assert_eq!(edge.call("kept", "").await.ok(), "Hello from Fawn\n");

    // What nobody has asked for in a while makes room for what is new.
    let modules = format!("/proc/{}/root{}/modules", edge.process.pid, folder.display());
    for module in std::fs::read_dir(modules).unwrap() {
        let module = std::fs::File::open(module.unwrap().path()).unwrap();
        module.set_modified(SystemTime::now() - Duration::from_secs(600)).unwrap();
    }
    edge.serve(Deployment::of("new", &edge.upload(text(ECHO)).await)).await;
    assert_eq!(edge.call("new", "hello").await.ok(), "hello");
    assert_eq!(edge.call("kept", "").await.ok(), "Hello from Fawn\n");
}
