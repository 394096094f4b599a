use super::*;

#[test]
fn bins_rise_with_sizes() {
    let mut last = 0;
    for size in (1_usize..1 << 12).map(|n| n << 18) {
        let now = bin(size);
        assert!(now == last || now == last + 1, "{size}");
        last = now;
    }
    assert_eq!((bin(1 << 20), bin(5 << 18), bin(2 << 20)), (0, 1, 4));
    assert_eq!(bin(usize::MAX), BINS - 1);
}
