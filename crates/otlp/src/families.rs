//! The text of `/metrics` as OTLP: one list of families, whoever reads it. What writes that text offers its families in no
//! other form, and it is the same text that everybody else reads.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::metrics::v1::metric::Data;
use opentelemetry_proto::tonic::metrics::v1::number_data_point::Value as Number;
use opentelemetry_proto::tonic::metrics::v1::{
    AggregationTemporality, Gauge, Histogram, HistogramDataPoint, Metric, NumberDataPoint, Sum,
};

/// When counting began, and when it was read; in nanoseconds since 1970.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) start: u64,
    pub(crate) now: u64,
}

/// The families of a text in the format of OpenMetrics, as far as `prometheus-client` writes it for counters, gauges and
/// histograms: each has the name that its samples have.
pub(crate) fn read(text: &str, times: Times) -> Result<Vec<Metric>, String> {
    let mut metrics = Vec::<Metric>::new();
    for line in text.lines().filter(|line| *line != "# EOF") {
        let understood = match line.strip_prefix("# ") {
            Some(descriptor) => describe(&mut metrics, descriptor),
            None => metrics.last_mut().and_then(|metric| add(metric, line, times)),
        };
        understood.ok_or_else(|| format!("this line of /metrics cannot be exported: {line}"))?;
    }
    // A family of which there is nothing yet.
    metrics.retain(|metric| match &metric.data {
        Some(Data::Sum(sum)) => !sum.data_points.is_empty(),
        Some(Data::Gauge(gauge)) => !gauge.data_points.is_empty(),
        Some(Data::Histogram(histogram)) => !histogram.data_points.is_empty(),
        _ => false,
    });
    Ok(metrics)
}

/// A line that tells of a family; its help comes first.
fn describe(metrics: &mut Vec<Metric>, descriptor: &str) -> Option<()> {
    let (keyword, rest) = descriptor.split_once(' ')?;
    let (name, said) = rest.split_once(' ')?;
    if keyword == "HELP" {
        metrics.push(Metric { name: name.to_owned(), description: said.to_owned(), ..Default::default() });
        return Some(());
    }
    let metric = metrics.last_mut()?;
    let aggregation_temporality = AggregationTemporality::Cumulative as i32;
    match (keyword, said) {
        ("TYPE", "counter") => {
            metric.name += "_total";
            metric.data = Some(Data::Sum(Sum { data_points: Vec::new(), aggregation_temporality, is_monotonic: true }));
        }
        ("TYPE", "gauge") => metric.data = Some(Data::Gauge(Gauge::default())),
        ("TYPE", "histogram") => {
            metric.data = Some(Data::Histogram(Histogram { data_points: Vec::new(), aggregation_temporality }));
        }
        // As OpenTelemetry writes units.
        ("UNIT", "seconds") => metric.unit = "s".to_owned(),
        ("UNIT", "bytes") => metric.unit = "By".to_owned(),
        ("UNIT", unit) => metric.unit = unit.to_owned(),
        _ => return None,
    }
    Some(())
}

/// A sample of a family.
fn add(metric: &mut Metric, line: &str, times: Times) -> Option<()> {
    let at = line.find(['{', ' '])?;
    let (name, rest) = line.split_at(at);
    let (mut attributes, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Vec::new(), rest),
    };
    // An example may come after it.
    let value = rest.trim_start().split(' ').next()?;
    let Times { start: start_time_unix_nano, now: time_unix_nano } = times;
    match metric.data.as_mut()? {
        Data::Histogram(histogram) => {
            let part = name.strip_prefix(metric.name.as_str())?;
            let bound = attributes.iter().position(|label| label.key == "le").map(|at| attributes.remove(at));
            let points = &mut histogram.data_points;
            if points.last().is_none_or(|point| point.attributes != attributes) {
                let point =
                    HistogramDataPoint { attributes, start_time_unix_nano, time_unix_nano, ..Default::default() };
                points.push(point);
            }
            measure(points.last_mut()?, part, bound, value)
        }
        data => {
            let (points, start_time_unix_nano) = match data {
                Data::Sum(sum) => (&mut sum.data_points, start_time_unix_nano),
                Data::Gauge(gauge) => (&mut gauge.data_points, 0),
                _ => return None,
            };
            let value = Some(number(value)?);
            points.push(NumberDataPoint {
                attributes,
                start_time_unix_nano,
                time_unix_nano,
                value,
                ..Default::default()
            });
            (name == metric.name).then_some(())
        }
    }
}

/// A part of a histogram. Its buckets are in order, and each there has those below it in it.
fn measure(point: &mut HistogramDataPoint, part: &str, bound: Option<KeyValue>, value: &str) -> Option<()> {
    match (part, bound) {
        ("_sum", None) => point.sum = Some(value.parse().ok()?),
        ("_count", None) => point.count = value.parse().ok()?,
        ("_bucket", Some(bound)) => {
            let Value::StringValue(bound) = bound.value?.value? else { return None };
            let below: u64 = point.bucket_counts.iter().sum();
            point.bucket_counts.push(value.parse::<u64>().ok()?.checked_sub(below)?);
            if bound != "+Inf" {
                point.explicit_bounds.push(bound.parse().ok()?);
            }
        }
        _ => return None,
    }
    Some(())
}

fn number(value: &str) -> Option<Number> {
    value.parse().map(Number::AsInt).or_else(|_| value.parse().map(Number::AsDouble)).ok()
}

/// Labels up to the closing brace, and what comes behind it.
fn labels(mut text: &str) -> Option<(Vec<KeyValue>, &str)> {
    let mut labels = Vec::new();
    loop {
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (key, quoted) = text.strip_prefix(',').unwrap_or(text).split_once("=\"")?;
        let (mut value, mut chars) = (String::new(), quoted.char_indices());
        text = loop {
            match chars.next()? {
                (_, '\\') => value.push(match chars.next()?.1 {
                    'n' => '\n',
                    other => other,
                }),
                (at, '"') => break quoted.get(at + 1..)?,
                (_, other) => value.push(other),
            }
        };
        let value = Some(AnyValue { value: Some(Value::StringValue(value)) });
        labels.push(KeyValue { key: key.to_owned(), value, ..Default::default() });
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use prometheus_client::metrics::counter::Counter;
    use prometheus_client::metrics::family::Family;
    use prometheus_client::metrics::gauge::Gauge;
    use prometheus_client::metrics::histogram::Histogram as Measured;
    use prometheus_client::registry::{Registry, Unit};

    use super::*;

    type Labels = Vec<(String, String)>;

    const TIMES: Times = Times { start: 1, now: 2 };

    fn told(labels: &[KeyValue]) -> Labels {
        let text = |label: &KeyValue| match label.value.clone().unwrap().value.unwrap() {
            Value::StringValue(text) => text,
            other => panic!("{other:?}"),
        };
        labels.iter().map(|label| (label.key.clone(), text(label))).collect()
    }

    #[test]
    fn counters_gauges_and_histograms_are_read_as_they_were_registered() {
        let mut registry = Registry::default();
        let r = registry.sub_registry_with_prefix("ferry");
        let counters = Family::<Labels, Counter>::default();
        let awkward: Labels = vec![("a".into(), "x\\y \"},{=\n# é".into()), ("b".into(), String::new())];
        counters.get_or_create(&awkward).inc_by(7);
        r.register("things", "Things, some {of} them", counters);
        let (gauge, part) = (Gauge::<i64>::default(), Gauge::<f64, std::sync::atomic::AtomicU64>::default());
        gauge.set(-3);
        part.set(0.5);
        r.register("now", "Now", gauge);
        r.register_with_unit("age", "Age", Unit::Seconds, part);
        r.register("nothing", "Of which there is none yet", Family::<Labels, Counter>::default());
        let times = Family::<Labels, Measured>::new_with_constructor(|| Measured::new([0.1, 1.0]));
        for time in [0.05, 0.5, 0.6, 5.0] {
            times.get_or_create(&vec![("k".into(), "1".into())]).observe(time);
        }
        times.get_or_create(&vec![("k".into(), "2".into())]).observe(0.5);
        r.register_with_unit("took", "Took", Unit::Seconds, times);
        let mut text = String::new();
        encode(&mut text, &registry).unwrap();

        let metrics = read(&text, TIMES).unwrap();
        let names: Vec<_> = metrics.iter().map(|metric| (metric.name.as_str(), metric.unit.as_str())).collect();
        assert_eq!(
            names,
            [("ferry_things_total", ""), ("ferry_now", ""), ("ferry_age_seconds", "s"), ("ferry_took_seconds", "s")]
        );
        assert_eq!(metrics[0].description, "Things, some {of} them.");
        let Some(Data::Sum(sum)) = &metrics[0].data else { panic!("{metrics:#?}") };
        assert!(sum.is_monotonic && sum.aggregation_temporality == AggregationTemporality::Cumulative as i32);
        assert_eq!(
            (told(&sum.data_points[0].attributes), &sum.data_points[0].value),
            (awkward, &Some(Number::AsInt(7)))
        );
        assert_eq!((sum.data_points[0].start_time_unix_nano, sum.data_points[0].time_unix_nano), (1, 2));
        let value = |at: usize| match &metrics[at].data {
            Some(Data::Gauge(gauge)) => gauge.data_points[0].value,
            other => panic!("{other:?}"),
        };
        assert_eq!((value(1), value(2)), (Some(Number::AsInt(-3)), Some(Number::AsDouble(0.5))));
        let Some(Data::Histogram(histogram)) = &metrics[3].data else { panic!("{metrics:#?}") };
        let mut points: Vec<_> = histogram.data_points.iter().map(|point| (told(&point.attributes), point)).collect();
        points.sort_by(|one, other| one.0.cmp(&other.0));
        let [(_, one), (_, two)] = points[..] else { panic!("{points:#?}") };
        assert_eq!((&one.bucket_counts[..], &one.explicit_bounds[..]), (&[1, 2, 1][..], &[0.1, 1.0][..]));
        assert_eq!((one.count, one.sum, two.count, &two.bucket_counts[..]), (4, Some(6.15), 1, &[0, 1, 0][..]));
    }

    #[test]
    fn what_is_not_understood_is_named_and_nothing_is_guessed() {
        for wrong in
            ["a 1", "# HELP a A.\n# TYPE a summary", "# HELP a A.\n# TYPE a gauge\na{b=\"c 1", "# HELP a A.\na 1"]
        {
            let last = wrong.lines().last().unwrap();
            assert_eq!(read(wrong, TIMES).unwrap_err(), format!("this line of /metrics cannot be exported: {last}"));
        }
    }
}
