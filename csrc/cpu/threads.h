// The package's own threads: one pool a process, made when it is first needed.
//
// A region runs a function on a team of threads at once (the caller is member 0). Work is split so that every output
// element is computed in the same way for any team size, so the size may be chosen freely: if the pool is busy with
// another Python thread's region, a region runs on its caller alone.
#pragma once

namespace fastlstm {

class Barrier;

class Team {
 public:
  Team(int member, int size, Barrier* barrier) : member_(member), size_(size), barrier_(barrier) {}
  int member() const { return member_; }
  int size() const { return size_; }
  // Waits until every member has come here; what each wrote before is then seen by all.
  void wait();

 private:
  int member_;
  int size_;
  Barrier* barrier_;
};

using Region = void (*)(void* context, Team& team);

// Runs region on at most `threads` threads, and no more than set_num_threads allows. Does not throw if threads cannot
// be made: the team is then smaller.
void run_team(int threads, Region region, void* context);

void set_num_threads(int threads);
int num_threads();

}  // namespace fastlstm
