//! Masking of client payloads (RFC 6455 section 5.3): XOR with a repeated 4-byte key.
//!
//! Works on whole blocks of a fixed size, so that the compiler emits vector instructions for it without `unsafe`; the
//! tests state the plain form that it must equal. HOT: each byte of a client's payload passes here once. PURE: works in
//! place, owns no state, and does not know frames. The caller keeps the phase, so a payload may come in any cut. No
//! limits: the caller's slice is the bound. Cost: one step for each 32 bytes, and single bytes at the end.

/// Bytes per block: two 16-byte or one 32-byte vector operation.
const BLOCK: usize = 32;

/// Removes (or applies: the operation is its own inverse) `mask` in place. `phase` counts the
/// payload bytes of the same frame that came before `payload`.
///
/// HOT: one pass over the bytes.
pub fn unmask(payload: &mut [u8], mask: [u8; 4], phase: usize) {
    let mask = rotated(mask, phase);
    let block_mask = repeated(mask);
    let (blocks, rest) = payload.as_chunks_mut::<BLOCK>();
    for block in blocks {
        for (byte, key) in block.iter_mut().zip(block_mask) {
            *byte ^= key;
        }
    }
    // Both block sizes are multiples of four, so the mask starts again after each block.
    let (words, rest) = rest.as_chunks_mut::<4>();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    for (byte, key) in rest.iter_mut().zip(mask) {
        *byte ^= key;
    }
}

fn rotated(mut mask: [u8; 4], phase: usize) -> [u8; 4] {
    mask.rotate_left(phase % 4);
    mask
}

fn repeated(mask: [u8; 4]) -> [u8; BLOCK] {
    let mut block = [0; BLOCK];
    for word in block.as_chunks_mut::<4>().0 {
        *word = mask;
    }
    block
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition: byte i of the frame is XORed with byte i mod 4 of the key.
    fn unmask_reference(payload: &mut [u8], mask: [u8; 4], phase: usize) {
        for (index, byte) in payload.iter_mut().enumerate() {
            *byte ^= mask[(index + phase) % 4];
        }
    }

    fn sample(length: usize) -> Vec<u8> {
        (0..length).map(|i| u8::try_from(i * 7 % 251).unwrap()).collect()
    }

    #[test]
    fn equals_the_reference_for_all_lengths_alignments_and_phases() {
        let mask = [0x12, 0xf3, 0x04, 0x9a];
        for length in 0..300 {
            for offset in 0..8 {
                for phase in 0..5 {
                    let mut fast = sample(offset + length);
                    let mut plain = fast.clone();
                    unmask(&mut fast[offset..], mask, phase);
                    unmask_reference(&mut plain[offset..], mask, phase);
                    assert_eq!(fast, plain, "length {length} offset {offset} phase {phase}");
                }
            }
        }
    }

    #[test]
    fn pieces_unmasked_with_their_phase_equal_the_whole() {
        let mask = [1, 2, 3, 4];
        let mut whole = sample(100);
        unmask(&mut whole, mask, 0);
        for cut in 0..=100 {
            let mut pieces = sample(100);
            let (front, back) = pieces.split_at_mut(cut);
            unmask(front, mask, 0);
            unmask(back, mask, cut);
            assert_eq!(pieces, whole, "cut at {cut}");
        }
    }

    #[test]
    fn twice_is_the_identity() {
        let mut payload = sample(77);
        unmask(&mut payload, [9, 8, 7, 6], 3);
        unmask(&mut payload, [9, 8, 7, 6], 3);
        assert_eq!(payload, sample(77));
    }
}
