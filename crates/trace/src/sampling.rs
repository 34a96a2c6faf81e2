//! Which traces are exported.

use opentelemetry::trace::SpanKind;
use opentelemetry_sdk::trace::{Sampler, SamplingDecision, ShouldSample};

use crate::place::Place;

/// Which spans are exported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Sampling {
    /// A trace that comes from elsewhere is exported here if it is there.
    pub(crate) follows_parent: bool,
    /// The share of other traces, from 0 to 1.
    pub(crate) ratio: f64,
}

impl Sampling {
    pub(crate) fn samples(&self, place: Place, parent: Option<Place>) -> bool {
        match parent {
            Some(parent) if self.follows_parent => parent.is_sampled,
            _ => {
                // As every library of OpenTelemetry decides for this trace.
                let sampler = Sampler::TraceIdRatioBased(self.ratio);
                let result = sampler.should_sample(None, place.trace, "", &SpanKind::Internal, &[], &[]);
                result.decision == SamplingDecision::RecordAndSample
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(last: u8, is_sampled: bool) -> Place {
        let mut id = [0xff; 16];
        id[8..].fill(last);
        Place { is_sampled, ..Place::first_of(id) }
    }

    #[test]
    fn a_share_of_the_traces_is_exported_and_those_of_others_as_they_say() {
        let of = |follows_parent, ratio| Sampling { follows_parent, ratio };
        let (early, late) = (place(0, false), place(0xff, false));
        assert!(of(true, 1.0).samples(late, None) && !of(true, 0.0).samples(early, None));
        // By the trace's id, so that all ends decide alike.
        assert!(of(true, 0.5).samples(early, None) && !of(true, 0.5).samples(late, None));
        for sampled in [true, false] {
            let parent = Some(place(1, sampled));
            assert_eq!(of(true, 0.5).samples(late, parent), sampled);
            assert!(!of(false, 0.5).samples(late, parent));
        }
    }
}
