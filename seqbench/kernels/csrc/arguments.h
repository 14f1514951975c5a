// The calling convention between Python (kernels/build.py) and the kernels.
//
// ARGUMENTS(Name, fields...) declares a struct of 8-byte fields (int64_t, double, pointers), and exports
// its declaration as text and its size. Python reads the order of the fields from that text and passes
// values by name: no second list can disagree with this one.
//
// A kernel is a struct whose constructor takes arguments and a workspace, and which does its work in
// `run()`. It allocates nothing: Python asks for the size of the workspace first and allocates it, so
// that running out of memory is an exception of Python.

// Each source is compiled for one dtype, named by the macro REAL.

#pragma once

#include "vector.h"

// Raise it when a field or a function changes its meaning, here and in build.py.
constexpr int64_t CONVENTION = 1;

#define ARGUMENTS(NAME, ...)                                                                       \
    template <class Real> struct NAME {                                                            \
        __VA_ARGS__                                                                                \
    };                                                                                             \
    extern "C" const char *NAME##_fields() { return #__VA_ARGS__; }                                \
    extern "C" int64_t NAME##_bytes() { return sizeof(NAME<float>); }

// Memory for intermediate results, handed out slice by slice. Without memory it only counts.
class Workspace {
    uintptr_t start;
    int64_t used = 0;

  public:
    static constexpr int64_t ALIGNMENT = 64;  // of a cache line, and of the widest vector

    explicit Workspace(void *memory) : start(reinterpret_cast<uintptr_t>(memory)) {}
    template <class Value> Value *take(int64_t count) {
        const uintptr_t slice = start + used;
        used += (count * int64_t(sizeof(Value)) + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
        return reinterpret_cast<Value *>(slice);
    }
    int64_t bytes() const { return used; }
};

// Export KERNEL, which takes STRUCT, as NAME, and the size of its workspace as NAME_workspace.
#define EXPORT(NAME, STRUCT, ...)                                                                  \
    extern "C" void NAME(const STRUCT *a) {                                                        \
        Workspace workspace(a->workspace);                                                         \
        __VA_ARGS__(*a, workspace).run();                                                          \
    }                                                                                              \
    extern "C" int64_t NAME##_workspace(const STRUCT *a) {                                         \
        Workspace workspace(nullptr);                                                              \
        __VA_ARGS__ kernel(*a, workspace);                                                         \
        return workspace.bytes();                                                                  \
    }

extern "C" int64_t convention() { return CONVENTION; }
extern "C" int64_t vector_bytes() { return VECTOR_BYTES; }
