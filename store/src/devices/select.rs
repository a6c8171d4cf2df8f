//! Which devices a selector means, asked of the database.

use setpoint_model::{
    DeviceId, Serial,
    selector::{Expression, Selector},
};
use sqlx::{Postgres, QueryBuilder};

use crate::{Result, Store, settings::parse};

/// A device that was selected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selected {
    /// Its id.
    pub id: DeviceId,
    /// Its serial.
    pub serial: Serial,
}

impl Store {
    /// A page of the devices that `selector` means, in the order of their ids: those behind `after` (0 for the first page),
    /// at most `limit`. A fleet of any size is gone through page by page.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn select_devices(
        &self,
        selector: &Selector,
        after: DeviceId,
        limit: i64,
    ) -> Result<Vec<Selected>> {
        let mut query = QueryBuilder::<Postgres>::new("SELECT d.id, d.serial FROM devices d WHERE d.id > ");
        query.push_bind(after.0).push(" AND ");
        push(&mut query, selector);
        query.push(" ORDER BY d.id LIMIT ").push_bind(limit);
        let rows: Vec<(i64, String)> = query.build_query_as().fetch_all(&self.pool).await?;
        rows.into_iter()
            .map(|(id, serial)| {
                Ok(Selected {
                    id: DeviceId(id),
                    serial: parse(&serial)?,
                })
            })
            .collect()
    }

    /// How many devices `selector` means.
    ///
    /// # Errors
    /// When the database fails.
    pub async fn count_selected(&self, selector: &Selector) -> Result<i64> {
        let mut query = QueryBuilder::<Postgres>::new("SELECT count(*) FROM devices d WHERE ");
        push(&mut query, selector);
        Ok(query.build_query_scalar().fetch_one(&self.pool).await?)
    }
}

/// Adds the condition that the device `d` is selected. It says the same as [`Selector::matches`].
pub(crate) fn push(query: &mut QueryBuilder<Postgres>, selector: &Selector) {
    condition(query, selector.expression());
}

fn condition(query: &mut QueryBuilder<Postgres>, expression: &Expression) {
    let joined = |query: &mut QueryBuilder<Postgres>, parts: &[Expression], word: &str| {
        for (n, part) in parts.iter().enumerate() {
            query.push(if n > 0 { word } else { "(" });
            condition(query, part);
        }
        query.push(")");
    };
    match expression {
        Expression::Any => {
            query.push("true");
        }
        Expression::Has(tag) => {
            query.push("d.tags ? ").push_bind(tag.clone());
        }
        Expression::Is(tag, values) => {
            let meanings = values.iter().flat_map(|value| value.values());
            for (n, value) in meanings.enumerate() {
                // One containment each: the index on tags serves those, and an `or` of them.
                query.push(if n > 0 { " OR " } else { "(" });
                query
                    .push("d.tags @> ")
                    .push_bind(serde_json::json!({ tag: value }));
            }
            query.push(")");
        }
        Expression::Not(inner) => {
            query.push("NOT ");
            condition(query, inner);
        }
        Expression::And(all) => joined(query, all, " AND "),
        Expression::Or(any) => joined(query, any, " OR "),
    }
}

/// The same as a predicate of `jsonpath` over a device's tags, for where a selector stands in a row: `tags @@ path`.
pub(crate) fn jsonpath(selector: &Selector) -> String {
    let mut path = String::new();
    predicate(&mut path, selector.expression());
    path
}

fn predicate(path: &mut String, expression: &Expression) {
    let joined = |path: &mut String, parts: &[Expression], word: &str| {
        for (n, part) in parts.iter().enumerate() {
            path.push_str(if n > 0 { word } else { "(" });
            predicate(path, part);
        }
        path.push(')');
    };
    // Texts are written as in JSON, which is how `jsonpath` reads them.
    let key = |tag: &str| format!("$.{}", serde_json::Value::from(tag));
    match expression {
        Expression::Any => path.push_str("(1 == 1)"),
        Expression::Has(tag) => path.push_str(&format!("exists({})", key(tag))),
        Expression::Is(tag, values) => {
            let meanings = values.iter().flat_map(|value| value.values());
            let meanings: Vec<String> = meanings.map(|value| format!("@ == {value}")).collect();
            // Within a filter what can't be compared is false, and not unknown, of which the opposite is unknown too.
            path.push_str(&format!("exists({} ? ({}))", key(tag), meanings.join(" || ")));
        }
        Expression::Not(inner) => {
            path.push_str("!(");
            predicate(path, inner);
            path.push(')');
        }
        Expression::And(all) => joined(path, all, " && "),
        Expression::Or(any) => joined(path, any, " || "),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use setpoint_model::device::Tags;

    use super::*;
    use crate::testing;

    const SELECTORS: [&str; 16] = [
        "*",
        "not *",
        "site",
        "not site",
        "site=oslo",
        "site!=oslo",
        "floor=2",
        "floor=\"2\"",
        "floor in (1,2.5,3)",
        "floor not in (2,'true')",
        "outdoor=true or floor=1",
        "outdoor='true'",
        "site=oslo and (floor=1 or floor=2) and not outdoor",
        "not (site=oslo or floor=2)",
        "id=9007199254740993",
        "place='a \"b\" %'",
    ];

    fn tags() -> Vec<Value> {
        let sites = [json!(null), json!("oslo"), json!("bergen"), json!(2)];
        let floors = [
            json!(null),
            json!(1),
            json!(2),
            json!(2.0),
            json!(2.5),
            json!("2"),
            json!("true"),
        ];
        let mut tags = vec![
            json!({"outdoor": true}),
            json!({"outdoor": "true"}),
            json!({"outdoor": false, "floor": 1}),
            json!({"id": 9_007_199_254_740_993_u64}),
            json!({"id": 9_007_199_254_740_992.0}),
            json!({"place": "a \"b\" %"}),
        ];
        for (site, floor) in sites
            .iter()
            .flat_map(|site| floors.iter().map(move |floor| (site, floor)))
        {
            let mut object = serde_json::Map::new();
            object.extend([
                ("site".to_owned(), site.clone()),
                ("floor".to_owned(), floor.clone()),
            ]);
            object.retain(|_, value| !value.is_null());
            tags.push(Value::Object(object));
        }
        tags
    }

    #[tokio::test]
    async fn the_database_selects_what_the_rule_does() {
        let database = testing::database().await;
        let store = database.store();
        let all = tags();
        for (n, tags) in all.iter().enumerate() {
            sqlx::query("INSERT INTO devices (serial, model, tags) VALUES ($1, 'home', $2)")
                .bind(format!("D-{n}"))
                .bind(tags)
                .execute(database.pool())
                .await
                .unwrap();
        }
        for text in SELECTORS {
            let selector = Selector::parse(text).unwrap();
            let matching = all.iter().enumerate().filter(|(_, tags)| {
                let tags = Tags::parse((*tags).clone()).unwrap();
                selector.matches(&tags)
            });
            let expected: Vec<String> = matching.map(|(n, _)| format!("D-{n}")).collect();
            let (mut found, mut after) = (Vec::new(), DeviceId(0));
            loop {
                let page = store.select_devices(&selector, after, 5).await.unwrap();
                assert!(page.len() <= 5);
                let Some(last) = page.last() else { break };
                after = last.id;
                found.extend(page.iter().map(|device| device.serial.as_str().to_owned()));
            }
            assert_eq!(found, expected, "{text}");
            let count = store.count_selected(&selector).await.unwrap();
            assert_eq!(usize::try_from(count).unwrap(), expected.len(), "{text}");
            let by_path: Vec<String> =
                sqlx::query_scalar("SELECT serial FROM devices WHERE tags @@ $1::text::jsonpath ORDER BY id")
                    .bind(jsonpath(&selector))
                    .fetch_all(database.pool())
                    .await
                    .unwrap();
            assert_eq!(by_path, expected, "{text}: {}", jsonpath(&selector));
        }
    }
}
