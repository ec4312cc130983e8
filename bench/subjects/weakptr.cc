// C++'s own answer: the owner holds a shared_ptr to a std::function, the caller a weak_ptr that it
// locks for the call. The handle is the address of the two.
#include <functional>
#include <memory>
#include <new>

#include "subject.h"

namespace {

struct Closure {
    std::function<intptr_t(void *)> call;
    void *user_data;
    bench_destroy_fn destroy;
    Closure(bench_fn fn, void *user_data, bench_destroy_fn destroy)
        : call([fn, user_data](void *arg) { return fn(user_data, arg); }), user_data(user_data),
          destroy(destroy)
    {
    }
    Closure(const Closure &) = delete;
    ~Closure() { destroy(user_data); }
};

struct Entry {
    std::shared_ptr<Closure> owner;
    std::weak_ptr<Closure> weak;
    std::shared_ptr<Closure> retained;
};

Entry *entry(uint64_t handle)
{
    return reinterpret_cast<Entry *>(static_cast<uintptr_t>(handle));
}

inline int weakptr_call(uint64_t handle, void *arg, intptr_t *out)
{
    if (std::shared_ptr<Closure> closure = entry(handle)->weak.lock()) {
        *out = closure->call(arg);
        return 0;
    }
    return -1;
}

inline int weakptr_add(bench_fn fn, void *user_data, bench_destroy_fn destroy, uint64_t *out)
{
    Entry *made = new Entry;
    made->owner = std::make_shared<Closure>(fn, user_data, destroy);
    made->weak = made->owner;
    *out = reinterpret_cast<uintptr_t>(made);
    return 0;
}

inline int weakptr_remove(uint64_t handle)
{
    delete entry(handle);
    return 0;
}

inline int weakptr_retain(uint64_t handle)
{
    entry(handle)->retained = entry(handle)->owner;
    return 0;
}

inline int weakptr_release(uint64_t handle)
{
    entry(handle)->retained.reset();
    return 0;
}

} // namespace

#define SUBJECT weakptr
#define SUBJECT_TEXT "C++ weak_ptr"
#define S_CALL weakptr_call
#define S_ADD weakptr_add
#define S_REMOVE weakptr_remove
#define S_RETAIN weakptr_retain
#define S_RELEASE weakptr_release
#include "loops.h"
