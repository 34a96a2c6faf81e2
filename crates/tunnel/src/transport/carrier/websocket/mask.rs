//! Masks of frames (RFC 6455 §5.3), many bytes at a time.

/// What a client's frame is masked with.
pub(super) type Mask = [u8; 4];

/// Bytes at a time: what compilers make a few wide instructions of. A multiple of a mask's length.
const WIDE: usize = 64;

/// Masks, or unmasks, what stands `offset` bytes into a payload.
pub(super) fn apply(bytes: &mut [u8], mask: Mask, offset: usize) {
    let mask = widen(mask, offset);
    let (chunks, rest) = bytes.as_chunks_mut::<WIDE>();
    for chunk in chunks {
        chunk.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    }
    rest.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
}

/// Masks what stands `offset` bytes into a payload while copying it to where there is as much room.
#[inline]
pub(super) fn copy(from: &[u8], to: &mut [u8], mask: Mask, offset: usize) {
    let mask = widen(mask, offset);
    let ((from, from_rest), (to, to_rest)) = (from.as_chunks::<WIDE>(), to.as_chunks_mut::<WIDE>());
    for (from, to) in from.iter().zip(to) {
        *to = std::array::from_fn(|at| from[at] ^ mask[at]);
    }
    from_rest.iter().zip(to_rest).zip(mask).for_each(|((from, to), mask)| *to = from ^ mask);
}

#[inline]
fn widen(mask: Mask, offset: usize) -> [u8; WIDE] {
    std::array::from_fn(|at| mask[(offset + at) % mask.len()])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_byte_is_masked_by_its_place_in_the_payload() {
        let (mask, payload) = ([0x37, 0xfa, 0x21, 0x3d], (0..=255).cycle().take(3 * WIDE + 5).collect::<Vec<u8>>());
        let expected = |offset| payload.iter().enumerate().map(move |(at, byte)| byte ^ mask[(offset + at) % 4]);
        for offset in 0..9 {
            for length in [0, 1, WIDE - 1, WIDE, payload.len()] {
                let (mut applied, mut copied) = (payload[..length].to_vec(), vec![0; length]);
                apply(&mut applied, mask, offset);
                copy(&payload[..length], &mut copied, mask, offset);
                let expected: Vec<u8> = expected(offset).take(length).collect();
                assert!(applied == expected && copied == expected, "{length} bytes at {offset}");
            }
        }
    }
}
