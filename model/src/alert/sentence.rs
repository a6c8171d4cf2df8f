//! One plain sentence on where a device stands towards a rule.

use chrono::{DateTime, Utc};
use serde_json::{Map, Value as Json};

use super::{Comparison, Condition, Literal, Operator, Standing, State, Subject, Timing};
use crate::{clock, telemetry::Value};

/// What a sentence is made from.
#[derive(Debug, Clone, Copy)]
pub struct Told<'a> {
    /// The rule's condition.
    pub condition: &'a Condition,
    /// Where the device stands.
    pub standing: &'a Standing,
    /// The values that were looked at, by metric.
    pub values: &'a Map<String, Json>,
    /// How long things take.
    pub timing: Timing,
}

/// One sentence, without a full stop. Times are UTC, with the date unless it is `now`'s.
pub fn sentence(told: &Told<'_>, now: DateTime<Utc>) -> String {
    let time = |at: DateTime<Utc>| clock::told(at, now);
    let Told {
        condition,
        standing,
        timing,
        ..
    } = *told;
    let since = standing.true_since.unwrap_or(standing.since);
    match (standing.state, standing.false_since) {
        (State::Ok, _) => "all is well".to_owned(),
        (State::Resolved, _) => format!("over since {}{}", time(standing.since), told.readings()),
        (State::Firing, Some(over)) => {
            let until = standing.due(timing).unwrap_or(over);
            format!(
                "no longer so since {}{}, resolved at {} if it stays so",
                time(over),
                told.readings(),
                time(until)
            )
        }
        (State::Pending, _) => {
            let until = standing.due(timing).unwrap_or(since);
            format!(
                "{}, fires at {}",
                told.wrong(condition, &time(since)),
                time(until)
            )
        }
        (State::Firing, None) => told.wrong(condition, &time(since)),
    }
}

impl Told<'_> {
    /// What is wrong.
    fn wrong(&self, condition: &Condition, since: &str) -> String {
        match &condition.subject {
            Subject::Metrics(all) => {
                let each: Vec<String> = all.iter().map(|comparison| self.compared(comparison)).collect();
                format!("{} since {since}", each.join(", and "))
            }
            Subject::Silence(None) => format!("no telemetry since {since}"),
            Subject::Silence(Some(metric)) => format!("no {metric} since {since}"),
            Subject::Offline => format!("offline since {since}"),
            Subject::SettingsPending => format!("settings pending since {since}"),
        }
    }

    /// `temperature is 31.5, above 30`.
    fn compared(&self, comparison: &Comparison) -> String {
        let metric = &comparison.metric;
        let literal = &comparison.literal;
        let Some(value) = self.values.get(metric) else {
            return format!("{metric} {} {literal}", comparison.operator.as_str());
        };
        if let (Some(clear), Some(number)) = (comparison.clear, value.as_f64())
            && !comparison.holds(&Value::Number(number), false)
        {
            return format!("{metric} is {value}, not back to {} yet", Literal::Number(clear));
        }
        match comparison.operator {
            Operator::Above => format!("{metric} is {value}, above {literal}"),
            Operator::AtLeast => format!("{metric} is {value}, at least {literal}"),
            Operator::Below => format!("{metric} is {value}, below {literal}"),
            Operator::AtMost => format!("{metric} is {value}, at most {literal}"),
            Operator::Equal => format!("{metric} is {value}"),
            Operator::Unequal => format!("{metric} is {value}, not {literal}"),
        }
    }

    /// `: temperature is 25`, or nothing.
    fn readings(&self) -> String {
        let each: Vec<String> = self
            .values
            .iter()
            .map(|(metric, value)| format!("{metric} is {value}"))
            .collect();
        if each.is_empty() {
            String::new()
        } else {
            format!(": {}", each.join(", "))
        }
    }
}
