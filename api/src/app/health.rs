//! Whether the parts that use cases stand on are there.

use std::collections::BTreeMap;

use super::App;

impl App {
    /// The parts that don't work at this moment, `database` or `broker`, each with what is wrong.
    pub async fn unready(&self) -> BTreeMap<String, String> {
        let mut wrong = BTreeMap::new();
        if let Err(error) = self.store.ping().await {
            wrong.insert("database".to_owned(), error.to_string());
        }
        let counts = self.broker.counts();
        if counts.shards_healthy < counts.shards {
            let message = format!(
                "{} of {} router shards work",
                counts.shards_healthy, counts.shards
            );
            wrong.insert("broker".to_owned(), message);
        }
        wrong
    }
}
