//! The server and Postgres killed at random moments, again and again, while clients of every kind send: what was
//! acknowledged is stored, once.

mod senders;

use futures_util::future::join_all;
use nix::sys::signal::Signal;
use setpoint_tests::{
    Child, Options, Version, eventually,
    harness::child::{children, kill_process, signal_process, stop_process},
};
use uuid::Uuid;

use crate::PROGRAM;
use senders::{Progress, Sender, Way};

/// How often each is killed.
const ROUNDS: u64 = 5;

/// What all clients together may have on its way.
const IN_WINDOWS: u64 = 4 * senders::WINDOW as u64 + 2 * senders::BATCH;

/// A number below `end`.
fn random(end: usize) -> usize {
    let number = Uuid::new_v4().as_u128() % u128::try_from(end).unwrap();
    usize::try_from(number).unwrap()
}

/// After how many acknowledgements a round ends: at some time between two commits, or in the midst of one.
fn moment() -> u64 {
    40 + u64::try_from(random(400)).unwrap()
}

async fn clients(child: &Child) -> Vec<Sender> {
    let mut senders = Vec::new();
    for (serial, way) in [
        ("OLD-1", Way::Mqtt(Version::V3)),
        ("OLD-2", Way::Mqtt(Version::V3)),
        ("NEW-1", Way::Mqtt(Version::V5)),
        ("NEW-2", Way::Mqtt(Version::V5)),
        ("HTTP-1", Way::Http),
        ("HTTP-2", Way::Http),
    ] {
        senders.push(Sender::new(child.device(serial).await, way));
    }
    senders
}

#[tokio::test]
async fn the_server_killed_at_any_moment_has_what_it_acknowledged_once() {
    let mut child = Options::new(PROGRAM).start().await;
    let mut senders = clients(&child).await;
    for round in 1..=ROUNDS {
        let (progress, moment) = (Progress::endless(), moment());
        let sending = join_all(senders.iter_mut().map(|sender| sender.send(&progress)));
        let kill = async {
            progress.reaches(moment).await;
            child.kill().await;
        };
        let (there, ()) = tokio::join!(sending, kill);
        assert!(!there.contains(&true), "the server is gone for everybody");
        child.start_again().await;
        for sender in &mut senders {
            sender.device = child.again(&sender.device);
            sender.check(&format!("round {round}, killed at {moment}")).await;
        }
    }
    // What was left open is sent again, and then everything is there.
    let progress = Progress::until(1);
    let there = join_all(senders.iter_mut().map(|sender| sender.send(&progress))).await;
    assert!(!there.contains(&false), "the server stays");
    for sender in &senders {
        sender.check("in the end").await;
    }
}

#[tokio::test]
async fn postgres_killed_at_any_moment_has_what_was_acknowledged_once_and_no_device_notices() {
    let child = Options::new(PROGRAM).start().await;
    let mut senders = clients(&child).await;
    let moments: Vec<u64> = (0..ROUNDS).map(|_| moment()).collect();
    let progress = Progress::until(moments.iter().sum::<u64>() + 400);
    let sending = join_all(senders.iter_mut().map(|sender| sender.send(&progress)));
    let kills = async {
        let mut next = 0;
        for (round, moment) in moments.iter().enumerate() {
            next += moment;
            progress.reaches(next).await;
            // So much may have been acknowledged before the last kill; then it is only starting.
            let (postmaster, processes) = eventually!({
                let postmaster = child.try_postmaster();
                let processes = postmaster.map(|pid| (pid, children(pid)));
                processes.filter(|(_, processes)| !processes.is_empty())
            });
            if round % 2 == 0 {
                kill_process(postmaster);
                eventually!(child.try_postmaster().is_some_and(|pid| pid != postmaster));
            } else {
                // One of its processes, whichever it is; the postmaster ends the others and recovers.
                kill_process(processes[random(processes.len())]);
            }
        }
    };
    let (there, ()) = tokio::join!(sending, kills);
    assert!(!there.contains(&false), "no session ended");
    for sender in &senders {
        sender.check(&format!("killed at {moments:?}")).await;
    }
}

#[tokio::test]
async fn a_postgres_that_stands_still_holds_everything_back_until_it_goes_on() {
    let child = Options::new(PROGRAM)
        .env("SETPOINT_HTTP__REQUEST_TIMEOUT", "5s")
        .start()
        .await;
    let mut senders = clients(&child).await;
    let progress = Progress::until(1_000);
    let sending = join_all(senders.iter_mut().map(|sender| sender.send(&progress)));
    let hold = async {
        progress.reaches(100).await;
        // First who starts the others: then they are all.
        let postmaster = child.postmaster();
        stop_process(postmaster).await;
        let mut all = children(postmaster);
        for pid in &all {
            stop_process(*pid).await;
        }
        all.push(postmaster);
        let before = progress.count();
        child.api.get("/devices").await.problem(503, "unavailable");
        let more = progress.count() - before;
        assert!(
            more <= IN_WINDOWS,
            "{more} were acknowledged, which is more than could be committed already"
        );
        for pid in all {
            signal_process(pid, Signal::SIGCONT);
        }
    };
    let (there, ()) = tokio::join!(sending, hold);
    assert!(!there.contains(&false), "no session ended");
    for sender in &senders {
        sender.check("in the end").await;
    }
}
