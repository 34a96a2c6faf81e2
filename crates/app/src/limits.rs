//! Bounds that several parts have to agree on, and how a batch is kept within bounds.

/// Messages sent and not acknowledged: enough for 10,000 messages a second at a round-trip time of 100 ms. A receiver
/// remembers at least as many.
pub(crate) const WINDOW_MESSAGES: usize = 1024;
/// Bytes of results that the output keeps, in addition to the limit on messages that the user chose.
pub(crate) const MAX_OUTPUT_BYTES: usize = 144 << 20;
/// Bytes of dead messages kept.
pub(crate) const MAX_DEAD_BYTES: usize = 16 << 20;
/// Large messages that are being received at once.
pub(crate) const MAX_LARGE_MESSAGES: usize = 15;
/// Characters of a hook's error that are kept and sent.
pub(crate) const MAX_ERROR_CHARS: usize = 1000;

/// The first `max_items` of `items`, as long as their `bytes` add up to at most `max_bytes`. The first item always passes,
/// however large it is: nothing would ever get past it otherwise.
pub(crate) fn take_bounded<T>(
    items: impl Iterator<Item = T>,
    max_items: usize,
    max_bytes: usize,
    bytes: impl Fn(&T) -> usize,
) -> impl Iterator<Item = T> {
    let (mut is_first, mut total) = (true, 0usize);
    items.take(max_items).take_while(move |item| {
        total = total.saturating_add(bytes(item));
        std::mem::replace(&mut is_first, false) || total <= max_bytes
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_is_bounded_in_items_and_bytes_but_its_first_item_always_passes() {
        let take = |sizes: &[usize], max_items, max_bytes| {
            take_bounded(sizes.iter().copied(), max_items, max_bytes, |size| *size).collect::<Vec<_>>()
        };
        assert_eq!(take(&[1, 2, 3, 4], 3, 100), [1, 2, 3]);
        assert_eq!(take(&[1, 2, 3, 4], 100, 6), [1, 2, 3]);
        assert_eq!(take(&[7, 1], 100, 6), [7]);
        assert_eq!(take(&[0, 7, 1], 100, 6), [0], "an empty first item does not let a large second one pass");
        assert!(take(&[1], 0, 6).is_empty());
        assert_eq!(take(&[usize::MAX, 1], 100, 6), [usize::MAX]);
    }
}
