//! Elements: plain data.

/// Plain data of a pipe or a value.
pub trait Element: bytemuck::Pod {
    /// Its name.
    const NAME: &'static str = "element";
}

impl<T: bytemuck::Pod> Element for T {}
