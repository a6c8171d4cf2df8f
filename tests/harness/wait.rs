//! Waiting, always with an end.

use std::time::Duration;

use tokio::time::timeout;

/// The longest that one event is waited for. Generous, since a debug build shares two cores with all the others, and a
/// server with a Postgres of its own first has to make that; no test is right or wrong by how long something took.
pub const WAIT: Duration = Duration::from_secs(60);

/// How often [`crate::eventually!`] looks.
const INTERVAL: Duration = Duration::from_millis(20);

/// Awaits `future`.
///
/// # Panics
/// When it takes longer than [`WAIT`], naming `what` was awaited.
#[track_caller]
pub fn within<F: Future>(what: impl std::fmt::Display, future: F) -> impl Future<Output = F::Output> {
    let caller = std::panic::Location::caller();
    async move {
        match timeout(WAIT, future).await {
            Ok(output) => output,
            Err(_) => panic!("waited {WAIT:?} for {what}, at {caller}"),
        }
    }
}

/// What [`crate::eventually!`] waits for: `true`, or `Some` value, which it returns.
pub trait Condition {
    /// What holding gives.
    type Value;

    /// The value, once the condition holds.
    fn met(self) -> Option<Self::Value>;
}

impl Condition for bool {
    type Value = ();

    fn met(self) -> Option<()> {
        self.then_some(())
    }
}

impl<T> Condition for Option<T> {
    type Value = T;

    fn met(self) -> Option<T> {
        self
    }
}

/// The pause between two looks.
pub async fn pause() {
    tokio::time::sleep(INTERVAL).await;
}

/// Looks at a condition (a `bool` or an `Option`) again and again until it holds, and gives the option's value.
///
/// For what can only be asked over REST; everything that announces itself is awaited instead. A message after the
/// condition is evaluated when time runs out, so it can show how things stand.
#[macro_export]
macro_rules! eventually {
    ($condition:expr $(,)?) => {
        $crate::eventually!($condition, "{}", stringify!($condition))
    };
    ($condition:expr, $($message:tt)+) => {{
        let until = ::tokio::time::Instant::now() + $crate::WAIT;
        loop {
            if let Some(value) = $crate::wait::Condition::met($condition) {
                break value;
            }
            if ::tokio::time::Instant::now() >= until {
                panic!("waited {:?} for: {}", $crate::WAIT, format_args!($($message)+));
            }
            $crate::wait::pause().await;
        }
    }};
}
