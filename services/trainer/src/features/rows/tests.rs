use super::Rows;
use tch::{Device, Kind, Tensor};

#[test]
fn rows_are_the_same_from_their_parts_and_from_a_copy() {
    let all = Tensor::arange(60, (Kind::Float, Device::Cpu)).reshape([10, 3, 2]);
    let parts = || all.split_with_sizes([4, 1, 5], 0);
    let (mapped, copied) = (Rows::over(parts(), 0), Rows::over(parts(), 1 << 20));
    assert_eq!((mapped.parts.len(), copied.parts.len()), (3, 1));
    let orders: [&[usize]; 4] = [&[9, 0, 4, 3, 5, 4, 8], &[5, 6, 7], &[4], &[3, 2, 1, 0]];
    for order in orders {
        let indices: Vec<i64> = order.iter().map(|&index| index as i64).collect();
        let wanted = all.index_select(0, &Tensor::from_slice(&indices));
        assert!(mapped.take(order) == wanted && copied.take(order) == wanted);
    }
    // A copy: layers work in place.
    let _changed = mapped.take(&[0]).fill_(7.0);
    assert!(mapped.take(&[0]) == all.narrow(0, 0, 1));
}
