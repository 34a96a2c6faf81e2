//! The environment variables of OpenTelemetry that are about traces alone, as its specification has them.

use ferry_otlp::EnvironmentError;

use crate::sampling::Sampling;

/// Which traces are to be exported.
pub(crate) fn sampling(get: impl Fn(&str) -> Option<String>) -> Result<Sampling, EnvironmentError> {
    let (name, argument) = ("OTEL_TRACES_SAMPLER", "OTEL_TRACES_SAMPLER_ARG");
    let sampler = get(name).unwrap_or_else(|| "parentbased_always_on".into());
    let (follows_parent, root) = match sampler.strip_prefix("parentbased_") {
        Some(root) => (true, root),
        None => (false, sampler.as_str()),
    };
    let ratio = match root {
        "always_on" => 1.0,
        "always_off" => 0.0,
        "traceidratio" => match get(argument) {
            None => 1.0,
            Some(text) => match text.parse() {
                Ok(ratio) if (0.0..=1.0).contains(&ratio) => ratio,
                _ => return Err(EnvironmentError::new(argument, &text, "give a share from 0 to 1, such as 0.1")),
            },
        },
        _ => {
            let known = "give `always_on`, `always_off` or `traceidratio`, with or without `parentbased_` in front";
            return Err(EnvironmentError::new(name, &sampler, known));
        }
    };
    Ok(Sampling { follows_parent, ratio })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(variables: &[(&str, &str)]) -> Result<Sampling, String> {
        let get = |name: &str| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| (*value).to_owned());
        sampling(get).map_err(|error| error.to_string())
    }

    #[test]
    fn samplers_are_read() {
        assert_eq!(of(&[]), Ok(Sampling { follows_parent: true, ratio: 1.0 }));
        let sampler = [("OTEL_TRACES_SAMPLER", "traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "0.25")];
        assert_eq!(of(&sampler), Ok(Sampling { follows_parent: false, ratio: 0.25 }));
    }

    #[test]
    fn a_wrong_value_is_named_with_its_variable_and_what_to_give_instead() {
        let error = of(&[("OTEL_TRACES_SAMPLER", "sometimes")]).unwrap_err();
        assert!(error.starts_with("OTEL_TRACES_SAMPLER=sometimes") && error.contains("`traceidratio`"), "{error}");
        let share = [("OTEL_TRACES_SAMPLER", "parentbased_traceidratio"), ("OTEL_TRACES_SAMPLER_ARG", "2")];
        assert!(of(&share).unwrap_err().starts_with("OTEL_TRACES_SAMPLER_ARG=2"));
    }
}
