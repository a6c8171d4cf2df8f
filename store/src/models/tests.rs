use std::{collections::BTreeMap, time::Duration};

use serde_json::{Value, json};
use setpoint_model::{
    device::NewDevice,
    settings::{Diff, Status},
};

use super::*;
use crate::{Error, devices::FirstSettings, testing};

fn document(value: Value) -> Document {
    match value {
        Value::Object(document) => document,
        other => panic!("{other} is no object"),
    }
}

async fn device(store: &Store, serial: &str) {
    let new = NewDevice::parse(document(json!({"serial": serial}))).unwrap();
    let first = FirstSettings {
        document: Document::new(),
        origins: BTreeMap::new(),
        status: Status::default(),
        diff: Diff::new(),
    };
    let unsettled = store.begin_device(&new, DateTime::UNIX_EPOCH).await.unwrap();
    unsettled.commit(&first, None, "test").await.unwrap();
}

async fn update(locked: &mut LockedModels, definition: &Definition) -> i32 {
    let next = NewModelVersion {
        name: "home",
        definition,
        diff: &Document::new(),
        migrate: None,
        migrated_devices: 0,
        actor: "test",
        at: DateTime::UNIX_EPOCH,
    };
    locked.update(&next).await.unwrap()
}

/// Whether it does not come to its end for now.
async fn waits<T>(future: &mut (impl Future<Output = T> + Unpin)) -> bool {
    tokio::time::timeout(Duration::from_millis(50), future)
        .await
        .is_err()
}

#[tokio::test]
async fn a_change_of_settings_that_waits_for_a_model_is_judged_by_the_new_one() {
    let database = testing::database().await;
    let store = database.store();
    device(&store, "A").await;
    let mut model = store.lock_models(&["home", "none"]).await.unwrap();
    let mut settings = Box::pin(store.lock_settings(&["A"]));
    assert!(waits(&mut settings).await);
    let definition = model.model("home").unwrap().definition.clone();
    assert_eq!(update(&mut model, &definition).await, 2);
    model.commit().await.unwrap();
    let locked = settings.await.unwrap();
    assert_eq!(locked.devices()[0].model_version, 2);

    // And the other way round.
    let mut model = Box::pin(store.lock_models(&["home"]));
    assert!(waits(&mut model).await);
    locked.release().await.unwrap();
    model.await.unwrap().release().await.unwrap();
}

#[tokio::test]
async fn a_model_in_use_stays() {
    let database = testing::database().await;
    let store = database.store();
    device(&store, "A").await;
    let mut locked = store.lock_models(&["home"]).await.unwrap();
    assert_eq!(locked.device_count("home").await.unwrap(), 1);
    let error = locked.delete("home").await.unwrap_err();
    assert!(matches!(&error, Error::Reference { .. }), "{error:?}");
    assert_eq!(error.constraint(), Some("devices_model_fkey"));
}
