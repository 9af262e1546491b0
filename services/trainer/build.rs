//! Compiles the c10d shim against the libtorch that torch-sys links, and tells this package's
//! binaries and tests where it lies.

use std::env::{var, var_os};
use std::path::Path;

fn main() {
    println!("cargo:rerun-if-changed=shim");
    println!("cargo:rerun-if-changed=src/dist/ffi.rs");
    println!("cargo:rerun-if-env-changed=POMONA_CUDA_INCLUDE");
    let lib = var("DEP_TCH_LIBTORCH_LIB").expect("torch-sys is a direct dependency");
    let include = format!("{lib}/../include");
    let mut build = cxx_build::bridge("src/dist/ffi.rs");
    build
        .std("c++17")
        .flag("-D_GLIBCXX_USE_CXX11_ABI=1")
        .warnings(false)
        .opt_level(2)
        .include("shim")
        .include("shim/gloo-stubs");
    for folder in [include.clone(), format!("{include}/torch/csrc/api/include")] {
        build.flag("-isystem").flag(folder);
    }
    for file in ["shim.cc", "gloo.cc", "prefix.cc", "kernels.cc"] {
        build.file(format!("shim/{file}"));
    }
    let cuda = var_os("CARGO_FEATURE_CUDA").is_some();
    if cuda {
        // Headers of the CUDA runtime, crt, cccl and NCCL; the rest is declared in `cuda-stubs`.
        let headers = var("POMONA_CUDA_INCLUDE")
            .expect("feature `cuda` needs POMONA_CUDA_INCLUDE: colon-separated include folders");
        build.define("POMONA_CUDA", None).file("shim/cuda.cc");
        for folder in headers.split(':') {
            build.flag("-isystem").flag(folder);
        }
        build.flag("-idirafter").flag("shim/cuda-stubs");
    }
    build.compile("pomona_shim");
    println!("cargo:rustc-link-search=native={lib}");
    // Where CUDA is not there, the object is compiled and nothing refers to it.
    if cuda && Path::new(&lib).join("libtorch_cuda.so").exists() {
        println!("cargo:rustc-link-lib=torch_cuda");
        println!("cargo:rustc-link-lib=c10_cuda");
    }
    // The shim is a static archive: what it needs must come after it.
    println!("cargo:rustc-link-lib=torch_cpu");
    println!("cargo:rustc-link-lib=c10");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{lib}");
}
