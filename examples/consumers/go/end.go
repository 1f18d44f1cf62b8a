package main

import (
	"context"

	"github.com/twmb/franz-go/pkg/kadm"
	"github.com/twmb/franz-go/pkg/kgo"
)

// reachedEnd says whether every partition that has records was read up to its last stable offset.
func reachedEnd(ctx context.Context, client *kgo.Client, topic string, behind map[int32]bool) bool {
	for _, isBehind := range behind {
		if isBehind {
			return false
		}
	}
	ends, err := kadm.NewClient(client).ListCommittedOffsets(ctx, topic)
	if err != nil {
		return false
	}
	isEnd := true
	ends.Each(func(end kadm.ListedOffset) {
		if _, wasRead := behind[end.Partition]; end.Offset > 0 && !wasRead {
			isEnd = false
		}
	})
	return isEnd
}
